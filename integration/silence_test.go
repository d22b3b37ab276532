package integration_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/tailxds/tailxds/internal/events"

	"github.com/tailxds/tailxds/integration/lab"
	"github.com/tailxds/tailxds/integration/shares"
)

// silentFor is how long the relay's outage lasts.
const silentFor = 20 * time.Second

// allEnvoys are beside these devices, and sides are who may be reached from one of
// each region while nothing joins them.
var (
	allEnvoys = []string{"laptop", "west-1", "west-2", "east-1", "east-2"}
	sides     = map[string]shares.Shares{"laptop": {"west-1": 1, "west-2": 1}, "east-1": {"east-1": 2, "east-2": 2}}
)

// relayFallsSilent loses each packet from and to headscale while requests enter in
// both regions. It is the only way between them, to the control plane, and to
// coordination. That is worse than a relay that is stopped: no connection is closed
// and none is refused, so whoever waits for an answer learns nothing.
func relayFallsSilent(ctx context.Context, t *testing.T, l *lab.Lab) {
	before := lastChange(ctx, t, l)
	flows := map[string]func() (shares.Tally, error){}
	for device := range sides {
		stop, err := l.At(device).Flow(ctx, "http://localhost:10000/")
		if err != nil {
			t.Fatal(err)
		}
		flows[device] = stop
	}
	mend, err := l.Probe.Silence(ctx, l.Container("headscale"))
	if err != nil {
		t.Fatal(err)
	}
	over := time.Now().Add(silentFor)
	for device, own := range sides {
		await(ctx, t, func() error { return onlyHealthyIn(ctx, l, device, own) })
	}
	for time.Now().Before(over) {
		for device, own := range sides {
			assertShares(ctx, t, l.At(device), "http://localhost:10000/", own)
		}
		assertNothingPublished(ctx, t, l, before)
	}
	if err := mend(); err != nil {
		t.Fatal(err)
	}
	for _, device := range allEnvoys {
		await(ctx, t, func() error { return l.Serves(ctx, device, weights(bothRegions)) })
	}
	assertNothingPublished(ctx, t, l, before)
	for device, stop := range flows {
		assertOneFailed(t, device, stop)
	}
	for device := range sides {
		assertShares(ctx, t, l.At(device), "http://localhost:10000/", bothRegions, shares.OneStepWrong(bothRegions)...)
	}
	changeReachesAll(ctx, t, l)
}

// assertOneFailed holds that no more than one request of a flow failed. They are
// sent one after another. The first that is on its way by an open connection while
// packets are lost waits for its answer until the client gives up, after 5 s: to
// Envoy its server is one that takes long, unless the policy has an attempt_timeout.
// By then checks have failed, and no other request is sent that way.
func assertOneFailed(t *testing.T, device string, stop func() (shares.Tally, error)) {
	t.Helper()
	tally, err := stop()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d of %d requests of %s failed: %s", tally.Failed, tally.Failed+tally.Answered(), device, tally.Reasons)
	if tally.Failed > 1 {
		t.Errorf("%d requests of %s failed", tally.Failed, device)
	}
	if tally.Answered() < 1_000 {
		t.Errorf("only %d requests of %s were answered meanwhile", tally.Answered(), device)
	}
}

// changeReachesAll gives a server another weight, which each Envoy learns by the
// stream that it has now, and takes it back.
func changeReachesAll(ctx context.Context, t *testing.T, l *lab.Lab) {
	t.Helper()
	want := weights(bothRegions)
	want["west-1"] = 3
	node, err := l.Node(ctx, "west-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.SetTags(ctx, node, "tag:region-west", "tag:weight-3"); err != nil {
		t.Fatal(err)
	}
	for _, device := range allEnvoys {
		await(ctx, t, func() error { return l.Serves(ctx, device, want) })
	}
	asTagged(ctx, t, l)
	status, err := l.Status(ctx)
	if err != nil || len(status.Envoys) != len(allEnvoys) || status.Provider.Stale || status.Provider.LinkDown {
		t.Errorf("after the outage the control plane has %d Envoys, and says of its list %+v (%v)", len(status.Envoys), status.Provider, err)
	}
}

// lastChange is the newest that the control plane tells of.
func lastChange(ctx context.Context, t *testing.T, l *lab.Lab) uint64 {
	t.Helper()
	status, err := l.Status(ctx)
	if err != nil || len(status.Changes) == 0 {
		t.Fatalf("the control plane tells of %d changes (%v)", len(status.Changes), err)
	}
	return status.Changes[0].ID
}

// assertNothingPublished holds that since a change no endpoint was added, lost,
// held, or changed in any way. Envoys come and go, and problems are told.
func assertNothingPublished(ctx context.Context, t *testing.T, l *lab.Lab, since uint64) {
	t.Helper()
	status, err := l.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range status.Changes {
		if c.ID > since && !slices.Contains([]events.Kind{"came", "went", "problem", "mended"}, c.Kind) {
			t.Errorf("the control plane published something: %s: %s", c.Kind, c.Text)
		}
	}
}
