package integration_test

import (
	"context"
	"encoding/json"
	"os/exec"
	"testing"
	"time"

	"github.com/tailxds/tailxds/integration/engine"
	"github.com/tailxds/tailxds/integration/lab"
	"github.com/tailxds/tailxds/integration/shares"
)

// labCommand runs scripts/lab on the test's own lab.
func labCommand(ctx context.Context, t *testing.T, args ...string) {
	t.Helper()
	command := exec.CommandContext(ctx, "scripts/lab", args...)
	command.Dir = ".."
	output, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("scripts/lab %v: %v\n%s", args, err, output)
	}
	t.Logf("scripts/lab %v says\n%s", args, output)
}

// asTagged gives west-1 the weight back that the README took.
func asTagged(ctx context.Context, t *testing.T, l *lab.Lab) {
	node, err := l.Node(ctx, "west-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.SetTags(ctx, node, "tag:region-west", "tag:weight-1"); err != nil {
		t.Fatal(err)
	}
	await(ctx, t, func() error { return l.Serves(ctx, "laptop", weights(bothRegions)) })
}

// slowPathIsSlow asks a server of the other region directly. Only that it takes
// longer than the delay is held, never that it is fast without.
func slowPathIsSlow(ctx context.Context, t *testing.T, l *lab.Lab) {
	const delay = 400 * time.Millisecond
	labCommand(ctx, t, "break", "path", "west", "east", delay.String())
	if took := median(ctx, t, l, "east-1"); took < delay {
		t.Errorf("the path to east-1 is slowed by %v, and the median request took %v", delay, took)
	}
	labCommand(ctx, t, "mend")
}

// median is how long the middle one of some requests takes from the laptop to a server.
func median(ctx context.Context, t *testing.T, l *lab.Lab, server string) time.Duration {
	t.Helper()
	output, err := engine.Exec(ctx, l.Container("laptop"), "client", "-o", "json", "http://"+server+":8080", "9")
	if err != nil {
		t.Fatal(err)
	}
	var result struct {
		Answered int                `json:"answered"`
		Latency  map[string]float64 `json:"latency_ms"`
	}
	if err := json.Unmarshal([]byte(output), &result); err != nil || result.Answered != 9 {
		t.Fatalf("the client says %s (%v)", output, err)
	}
	return time.Duration(result.Latency["p50"] * float64(time.Millisecond))
}

// cutPathLeavesBothSides asks in both regions while nothing passes between them,
// and what the control plane serves: it reaches both.
func cutPathLeavesBothSides(ctx context.Context, t *testing.T, l *lab.Lab) {
	labCommand(ctx, t, "break", "path", "west", "east")
	for service, want := range sides {
		await(ctx, t, func() error { return onlyHealthyIn(ctx, l, service, want) })
		assertShares(ctx, t, l.At(service), "http://localhost:10000/", want)
	}
	status, err := l.Status(ctx)
	if err != nil || len(status.Envoys) != 5 {
		t.Errorf("the control plane has %d Envoys, not 5 (%v)", len(status.Envoys), err)
	}
	labCommand(ctx, t, "mend")
	for service := range sides {
		await(ctx, t, func() error { return l.Serves(ctx, service, weights(bothRegions)) })
		assertShares(ctx, t, l.At(service), "http://localhost:10000/", bothRegions, shares.OneStepWrong(bothRegions)...)
	}
}
