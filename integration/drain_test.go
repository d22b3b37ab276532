package integration_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tailxds/tailxds/internal/topology"

	"github.com/tailxds/tailxds/integration/engine"
	"github.com/tailxds/tailxds/integration/shares"
)

// aDrainedServerEndsWhatItHas gives a server weight 0 while it works on slow
// requests: it gets no new ones, ends those it has, stays on the status page,
// and the others' shares are what they would be without it.
func aDrainedServerEndsWhatItHas(ctx context.Context, t *testing.T, w *walk) {
	node, err := w.Node(ctx, "east-1")
	if err != nil {
		t.Fatal(err)
	}
	address := node.Addresses[slices.IndexFunc(node.Addresses, func(a string) bool { return strings.Contains(a, ".") })]
	busy, err := w.Probe.Watch(ctx, w.Container("west-1"), "http://127.0.0.1:9901/clusters",
		fmt.Sprintf(`(?m)^server::%s:8080::rq_active::[1-9]`, strings.ReplaceAll(address, ".", `\.`)))
	if err != nil {
		t.Fatal(err)
	}
	type result struct {
		tally shares.Tally
		err   error
	}
	slow := make(chan result, 1)
	go func() {
		// As many as the client sends at once, so that all are on their way.
		tally, err := w.Ask(ctx, envoy("west-1")+"?wait=8s", 8, "--concurrency=8", "--timeout=20s")
		slow <- result{tally, err}
	}()
	if _, err := busy(); err != nil {
		t.Fatal(err)
	}
	if err := w.SetTags(ctx, node, "tag:region-east", "tag:weight-0"); err != nil {
		t.Fatal(err)
	}
	rest := shares.Shares{"west-1": 1, "west-2": 1, "east-2": 2}
	w.awaitWeights(ctx, t, rest, "west-1")
	select {
	case <-slow:
		t.Fatal("the slow requests ended before Envoy knew of the drain, so this run tells nothing of them")
	default:
	}
	inFlight := <-slow
	if inFlight.err != nil {
		t.Fatal(inFlight.err)
	}
	// Had they been cut off, Envoy would have tried them again elsewhere.
	if got := inFlight.tally.By(shares.Host); got.Failed > 0 || got.Counts["east-1"] == 0 {
		t.Errorf("requests in flight while east-1 was drained: %+v, want some answered by east-1 and none failed", got)
	}
	assertShares(ctx, t, w.Lab, envoy("west-1"), rest, shares.OneStepWrong(rest)...)
	status, err := w.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	drained := func(e topology.Endpoint) bool { return e.Name == "east-1" && e.State == topology.Drained }
	if !slices.ContainsFunc(status.Services[0].Idle, drained) {
		t.Errorf("/status does not have east-1 as drained: %+v", status.Services)
	}
	if err := w.SetTags(ctx, node, node.Tags...); err != nil {
		t.Fatal(err)
	}
	w.awaitWeights(ctx, t, bothRegions, "west-1")
}

// anOperatorDrains takes a server out by a word to the control plane, and gives it
// back; and `tailxds doctor` finds nothing that fails in all of it.
func anOperatorDrains(ctx context.Context, t *testing.T, w *walk) {
	tailxds := func(args ...string) string {
		t.Helper()
		said, err := engine.Exec(ctx, w.Container("control-plane"), append([]string{"tailxds"}, args...)...)
		if err != nil {
			t.Fatalf("tailxds %v: %v", args, err)
		}
		return said
	}
	rest := shares.Shares{"west-1": 1, "east-1": 2, "east-2": 2}
	if said := tailxds("drain", "west-2", "--for", "1h"); !strings.Contains(said, "takes no new requests until") {
		t.Errorf("drain says %q", said)
	}
	w.awaitWeights(ctx, t, rest, "west-1")
	if found := tailxds("doctor"); !strings.Contains(found, "drained: west-2") || !strings.Contains(found, "as tsnet-dynamic-eds.") {
		t.Errorf("doctor finds\n%s", found)
	}
	tailxds("restore", "west-2")
	w.awaitWeights(ctx, t, bothRegions, "west-1")
}
