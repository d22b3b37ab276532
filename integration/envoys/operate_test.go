package envoys_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tailxds/tailxds/integration/harness"
)

// An operator takes a server out while requests flow: it gets no more, none
// fails, and it serves again when the word ends, over a restart of the control
// plane.
func TestDrain_underLoad_noRequestFails(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, b := r.Server("a"), r.Server("b")
	control := r.ControlPlane("", a.Device("tag:weight-3"), b.Device("tag:weight-1"))
	entry := control.Envoy("entry")
	entry.AwaitHealthy("server", 2)
	load := r.Host("laptop").Flow(8, harness.Get(entry.URL(10000), ""))

	tailxds := func(want string, args ...string) {
		t.Helper()
		if said, err := control.Tailxds(args...); err != nil || !strings.Contains(said, want) {
			t.Fatalf("tailxds %v: %q, %v", args, said, err)
		}
	}
	tailxds("takes no new requests until `tailxds restore a`", "drain", a.V4.String())
	entry.AwaitHealthy("server", 1)
	control.Stop()
	control.Start()
	tailxds("drained", "status")
	before, served := b.Served.Load(), a.Served.Load()
	r.Await("a thousand requests more", func() error {
		if n := b.Served.Load() - before; n < 1000 {
			return fmt.Errorf("b has served %d", n)
		}
		return nil
	})
	if n := a.Served.Load(); n != served {
		t.Errorf("a has served %d requests since it was drained", n-served)
	}
	if n := entry.Stat("cluster.server.membership_total"); n != 1 {
		t.Errorf("after a restart Envoy knows %d servers", n)
	}

	tailxds("takes no new requests until 20", "drain", "a", "--for", "1s")
	entry.AwaitHealthy("server", 2) // it ended by itself
	tailxds("was not drained by an operator", "restore", "a")
	if tally := load.Stop(); tally.Failed > 0 || tally.Answered() < 1000 {
		t.Errorf("%d requests answered, %d failed", tally.Answered(), tally.Failed)
	}
}

// What `tailxds doctor` says of a pool in which each server has its Envoy, from
// both ends, and once one has none.
func TestDoctor_realPool_findsMissingEnvoy(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, b := r.Server("a"), r.Server("b")
	control := r.ControlPlane("", a.Device("tag:weight-1"), b.Device("tag:weight-1"))
	onA := control.EnvoyOn(a.Host)
	onA.AwaitHealthy("server", 2)
	finds := func(h *harness.Host, want string, args ...string) {
		t.Helper()
		r.Await(want, func() error {
			said, err := h.Tailxds(append([]string{"doctor"}, args...)...)
			if err != nil || !strings.Contains(strings.Join(strings.Fields(said), " "), want) {
				return errors.Join(err, errors.New(said))
			}
			return nil
		})
	}
	finds(control.Host, "WARN connected 1 of 2 servers have no Envoy connected: b")
	control.EnvoyOn(b.Host).AwaitHealthy("server", 2)
	finds(control.Host, "PASS connected 2, and one beside each of 2 servers")
	finds(control.Host, "PASS versions 1.40.")
	there := []string{"--control-plane", control.V4.String()}
	finds(a.Host, "PASS let in the control plane serves this host", there...)
	finds(a.Host, "PASS Envoy 1.40.0, connected to the control plane", there...)

	control.Stop()
	if said, err := a.Tailxds(append([]string{"doctor"}, there...)...); err == nil || !strings.Contains(said, "connection refused") {
		t.Errorf("the control plane is gone: %v, %s", err, said)
	}
}
