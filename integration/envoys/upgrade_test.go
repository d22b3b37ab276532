package envoys_test

import (
	"strings"
	"testing"

	"github.com/tailxds/tailxds/integration/repository"

	"github.com/tailxds/tailxds/integration/harness"
)

// before is the tailxds of the release before this tree.
func before(t *testing.T) string {
	t.Helper()
	program, err := repository.Script(t.Context(), "before")
	if err != nil {
		t.Skipf("the version before can't be had: %v", err)
	}
	return program
}

// docs/upgrading.md, with the version before and this one, while requests flow:
// the control plane goes forth and back, and each time has nothing but what the
// other kept, for the device list can't be read. Envoys are by bootstraps of both.
func TestUpgrade_andRollback_noRequestFails(t *testing.T) {
	t.Parallel()
	older := before(t)
	r := newRig(t)
	a, b, c := r.Server("a"), r.Server("b"), r.Server("c")
	devices := []harness.Device{a.Device("tag:weight-1"), b.Device("tag:weight-2"), c.Device("tag:weight-1")}
	control := r.ControlPlaneOf(older, "services: {server: {hosts: [example.com]}}", devices...)
	entry := control.Envoy("entry")
	entry.AwaitHealthy("server", 3)
	load := r.Host("laptop").Flow(4, harness.Get(entry.URL(10000), "example.com"))
	tailxds := func(want string, args ...string) {
		t.Helper()
		if said, err := control.Tailxds(args...); err != nil || !strings.Contains(said, want) {
			t.Fatalf("tailxds %v: %q, %v", args, said, err)
		}
	}
	// become restarts the control plane as another version, without a list.
	become := func(program string) {
		t.Helper()
		control.Stop()
		control.SetDevicesText("[")
		control.SetProgram(program)
		control.Start()
		tailxds("drained", "status")
		if control.Quarantined() {
			t.Error("it could not read what the other version kept")
		}
	}

	tailxds("takes no new requests", "drain", "a")
	entry.AwaitHealthy("server", 2)
	become(programs.ControlPlane)
	newer := control.Envoy("newer") // by this version's bootstrap
	for _, e := range []*harness.Envoy{entry, newer} {
		e.AwaitHealthy("server", 2)
	}
	control.SetDevices(devices...)
	tailxds("", "restore", "a")
	entry.AwaitHealthy("server", 3)
	tailxds("takes no new requests", "drain", "b", "--for", "1h")
	newer.AwaitHealthy("server", 2)

	become(older)
	late := control.Envoy("late") // by the older bootstrap
	for _, e := range []*harness.Envoy{entry, newer, late} {
		e.AwaitHealthy("server", 2)
	}
	control.SetDevices(devices...)
	tailxds("", "restore", "b")
	for _, e := range []*harness.Envoy{entry, newer, late} {
		e.AwaitHealthy("server", 3)
	}
	if rejected := control.Rejected(); rejected != "" {
		t.Errorf("Envoys rejected: %s", rejected)
	}
	load.AwaitMore(r, 100)
	if tally := load.Stop(); tally.Failed > 0 {
		t.Errorf("%d requests failed: %s", tally.Failed, tally.Reasons)
	}
}
