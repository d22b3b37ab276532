package integration_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ory/dockertest/v3/docker"

	"github.com/tailxds/tailxds/integration/engine"
	"github.com/tailxds/tailxds/integration/lab"
	"github.com/tailxds/tailxds/integration/shares"
)

// serverLosesItsCoordination cuts a server off from headscale alone: headscale
// says that it is offline, and it serves as before. Its own Envoy, which is
// connected to the control plane, is the witness.
func serverLosesItsCoordination(ctx context.Context, t *testing.T, r *rig) {
	await(ctx, t, func() error { return r.areOnline(ctx, "west-1", "east-1") }) // again, after what was before
	stop := r.flow(ctx, t)
	mend, err := r.Probe.Cut(ctx, r.Container("west-1"), r.address(ctx, t, "headscale"))
	if err != nil {
		t.Fatal(err)
	}
	// headscale would wait for its open connection for minutes.
	r.signal(t, "headscale", docker.SIGTERM)
	r.ends(ctx, t, "headscale")
	r.restarts(ctx, t, "headscale")
	await(ctx, t, func() error {
		node, err := r.Node(ctx, "west-1")
		if err == nil && node.Online {
			err = errors.New("headscale still says that west-1 is online")
		}
		return err
	})
	await(ctx, t, func() error { return r.disagree(ctx, "west-1", true) })
	r.without(ctx, t)
	if err := r.disagree(ctx, "west-1", true); err != nil {
		t.Error(err)
	}
	if err := mend(); err != nil {
		t.Fatal(err)
	}
	await(ctx, t, func() error { return r.disagree(ctx, "west-1", false) })
	assertNoneFailed(t, stop)
}

// address is where a part is on the rig's network now.
func (r *rig) address(ctx context.Context, t *testing.T, service string) string {
	t.Helper()
	address, err := engine.Docker(ctx, "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", r.Container(service))
	if err != nil || address == "" {
		t.Fatalf("%s has no address: %v", service, err)
	}
	return address
}

// disagree returns nil if the control plane says that the list and a device's
// own Envoy disagree, or not.
func (r *rig) disagree(ctx context.Context, device string, want bool) error {
	status, err := r.Status(ctx)
	if err != nil {
		return err
	}
	found := false
	for _, p := range status.Problems {
		found = found || p.Name == device && p.Subject == "offline" && strings.Contains(p.Reason, "its own Envoy is connected")
	}
	if found != want {
		return fmt.Errorf("the control plane's problems are %+v; one about %s and its Envoy: %t, not %t", status.Problems, device, found, want)
	}
	return nil
}

// restartWithoutCoordination restarts the control plane and a whole server while
// headscale is away. Both join the tailnet from what they have on disk, and find
// each other by a relay that is not headscale's.
func restartWithoutCoordination(ctx context.Context, t *testing.T, r *rig) {
	r.signal(t, "headscale", docker.SIGTERM)
	r.ends(ctx, t, "headscale")
	server := []string{"west-1", "west-1-server", "west-1-envoy"}
	for _, part := range append([]string{"control-plane"}, server...) {
		r.signal(t, part, docker.SIGTERM)
		r.ends(ctx, t, part)
	}
	for _, part := range append([]string{"control-plane"}, server...) {
		r.restarts(ctx, t, part)
	}
	r.findsItsShares(ctx, t)
	if status, err := r.Status(ctx); err != nil || !status.Provider.Stale || len(status.Envoys) != 1 {
		t.Errorf("the control plane should serve what it kept, to one Envoy: %+v, %d Envoys (%v)", status.Provider, len(status.Envoys), err)
	}

	r.restarts(ctx, t, "headscale")
	r.again(ctx, t)
	r.staysUntilItIsBack(ctx, t, "east-1")
	r.findsItsShares(ctx, t)
}

// areOnline returns nil if headscale says that devices are online.
func (r *rig) areOnline(ctx context.Context, devices ...string) error {
	for _, device := range devices {
		node, err := r.Node(ctx, device)
		if err != nil {
			return err
		}
		if !node.Online {
			return fmt.Errorf("headscale says that %s is offline", device)
		}
	}
	return nil
}

// staysUntilItIsBack waits until a server has found headscale again, which takes
// it longer than a device may be offline, and holds that it is an endpoint all the
// while. It has no Envoy that could say so.
func (r *rig) staysUntilItIsBack(ctx context.Context, t *testing.T, device string) {
	t.Helper()
	await(ctx, t, func() error {
		hosts, err := r.Hosts(ctx, "west-1")
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(hosts, func(h lab.Host) bool { return h.Name == device }) {
			t.Errorf("%s is on its way back, and is no endpoint of %v", device, hosts)
		}
		return r.areOnline(ctx, device)
	})
}

// findsItsShares waits until requests are shared as they should. A device that
// did not restart sends to where the others were until it notices.
func (r *rig) findsItsShares(ctx context.Context, t *testing.T) {
	t.Helper()
	await(ctx, t, func() error {
		tally, err := r.Ask(ctx, r.url(), shares.Enough(onePerRegion, shares.OneStepWrong(onePerRegion)...))
		if err == nil {
			err = shares.Check(tally.By(shares.Host), onePerRegion)
		}
		return err
	})
}

// deviceLosesItsTags takes away the tags that make a device an endpoint: its
// stream ends, it gets no new one, and its Envoy keeps what it has.
func deviceLosesItsTags(ctx context.Context, t *testing.T, r *rig) {
	node, err := r.Node(ctx, "west-1")
	if err != nil {
		t.Fatal(err)
	}
	since := time.Now()
	if err := r.SetTags(ctx, node, "tag:region-west"); err != nil {
		t.Fatal(err)
	}
	await(ctx, t, func() error { return r.refuses(ctx, since) })
	// The control plane says why before the stream is gone.
	await(ctx, t, func() error { return r.connects(ctx, 0) })
	// The last that its Envoy heard is that it serves no longer, and it keeps that.
	if err := r.Serves(ctx, "west-1", map[string]int{"east-1": 2}); err != nil {
		t.Error(err)
	}
	assertShares(ctx, t, r.Lab, r.url(), shares.Shares{"east-1": 1})

	if err := r.SetTags(ctx, node, node.Tags...); err != nil {
		t.Fatal(err)
	}
	await(ctx, t, func() error { return r.connects(ctx, 1) })
	r.servesBoth(ctx, t)
}

// connects returns nil if that many Envoys are connected to the control plane.
func (r *rig) connects(ctx context.Context, want int) error {
	status, err := r.Status(ctx)
	if err == nil && len(status.Envoys) != want {
		err = fmt.Errorf("%d Envoys are connected, not %d", len(status.Envoys), want)
	}
	return err
}

// refuses returns nil once the control plane has ended an open stream, and says
// why. That it refuses new ones is not enough.
func (r *rig) refuses(ctx context.Context, since time.Time) error {
	log, err := engine.Logs(ctx, r.Container("control-plane"), since)
	if err != nil {
		return err
	}
	for line := range strings.Lines(log) {
		if strings.Contains(line, "stream ended: its peer may connect no longer") && strings.Contains(line, "is no endpoint of any service") {
			return nil
		}
	}
	return errors.New("the control plane has not ended a stream yet")
}
