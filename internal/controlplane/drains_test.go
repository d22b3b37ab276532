package controlplane_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tailxds/tailxds/internal/controlplane/controlplanetest"
	"github.com/tailxds/tailxds/internal/drain"
	"github.com/tailxds/tailxds/internal/topology"
)

func TestDrain_restart_isKept(t *testing.T) {
	t.Parallel()
	all := controlplanetest.Machines(3, "tag:weight-1")
	c := controlplanetest.Trial(t, all)
	e := c.Connect("127.0.0.1", "server")
	e.Await("server", "d01=1 d02=1 d03=1")
	if got := controlplanetest.Operate(c, "drain", "device", "D02"); got != "d02 (127.0.0.12, ID 2) takes no new requests until `tailxds restore d02`; what it is working on, it ends" {
		t.Errorf("drain says %q", got)
	}
	e.Await("server", "d01=1 d03=1")
	// Whatever the device says, and though its own Envoy is connected.
	c.Connect("127.0.0.12", "server")
	c.List(controlplanetest.Each(all, 1, 2, func(d *topology.Device) {
		d.Tags, d.Attributes = []string{"tag:weight-5"}, map[string]string{"weight": "7"}
	}))
	e.Keeps(2*controlplanetest.Hold, "server", "d01=1 d03=1")
	c.List(controlplanetest.Each(all, 1, 2, controlplanetest.Offline))
	e.Keeps(2*controlplanetest.Hold, "server", "d01=1 d03=1")

	// It is killed as soon as it has answered: the word is kept by then.
	kept, err := os.ReadFile(filepath.Join(c.Dir, "state", "memory.json"))
	if err != nil || !strings.Contains(string(kept), "alice at the control plane") {
		t.Errorf("the memory does not hold the word: %v, %s", err, kept)
	}
	c = c.Restart()
	e = c.Connect("127.0.0.1", "server")
	e.Await("server", "d01=1 d03=1")
	c.List(all)
	e.Keeps(2*controlplanetest.Hold, "server", "d01=1 d03=1")
	s := c.Status()
	if len(s.Drains) != 1 || s.Drains[0].Name != "d02" || s.Drains[0].By != "alice at the control plane" || !s.Drains[0].Until.IsZero() {
		t.Errorf("drains: %+v", s.Drains)
	}
	i := slices.IndexFunc(s.Services[0].Idle, func(e topology.Endpoint) bool { return e.Name == "d02" })
	if i < 0 || s.Services[0].Idle[i].State != topology.Drained || s.Services[0].Idle[i].DrainedBy != "alice at the control plane" || s.Services[0].Idle[i].Weight != 1 {
		t.Errorf("idle: %+v", s.Services[0].Idle)
	}
	if got := controlplanetest.Operate(c, "restore", "device", "127.0.0.12"); got != "d02 (127.0.0.12, ID 2) serves again as its own metadata says; it was drained by alice at the control plane" {
		t.Errorf("restore says %q", got)
	}
	e.Await("server", "d01=1 d02=1 d03=1")
	c = c.Restart()
	c.Connect("127.0.0.1", "server").Await("server", "d01=1 d02=1 d03=1")
	if got := controlplanetest.Operate(c, "restore", "device", "2"); got != "d02 (127.0.0.12, ID 2) was not drained by an operator" {
		t.Errorf("a second restore says %q", got)
	}
}

func TestDrain_duration_ends(t *testing.T) {
	t.Parallel()
	c := controlplanetest.Trial(t, controlplanetest.Machines(2, "tag:weight-1"))
	e := c.Connect("127.0.0.1", "server")
	e.Await("server", "d01=1 d02=1")
	began := time.Now()
	if got := controlplanetest.Operate(c, "drain", "device", "d01", "for", "2s"); !strings.HasPrefix(got, "d01 (127.0.0.11, ID 1) takes no new requests until 20") {
		t.Errorf("drain says %q", got)
	}
	e.Await("server", "d02=1")
	// A device that the list lacks by now, and a restart, change nothing.
	c = c.Restart()
	e = c.Connect("127.0.0.1", "server")
	e.Await("server", "d01=1 d02=1")
	if long := time.Since(began); long < 2*time.Second {
		t.Errorf("it serves again after %v", long)
	}
	if s := c.Status(); len(s.Drains) > 0 {
		t.Errorf("drains: %+v", s.Drains)
	}
}

func TestDrain_lastServer_isHeld(t *testing.T) {
	t.Parallel()
	all := append(controlplanetest.Machines(2, "tag:weight-1"), controlplanetest.Machine(3, "tag:service-hello"))
	c := controlplanetest.Trial(t, all)
	e := c.Connect("127.0.0.1", "server", "hello")
	e.Await("hello", "d03=1")
	want := "d03 (127.0.0.13, ID 3) is to be drained until `tailxds restore d03`; BUT nobody else serves hello, so it serves on there until another does, or until `tailxds accept hello`"
	if got := controlplanetest.Operate(c, "drain", "device", "d03"); got != want {
		t.Errorf("drain says %q", got)
	}
	c.WantHeld("hello", "hello: the last 1 that serve are drained at once")
	e.Keeps(2*controlplanetest.Hold, "hello", "d03=1")
	// Another that serves lets it go.
	c.List(append(all, controlplanetest.Machine(4, "tag:service-hello", "tag:weight-2")))
	e.Await("hello", "d04=2")

	// A device that the list lacks, and that is published all the same, can be
	// drained and goes.
	c.List(all[2:])
	c.WantHeld("server", "the last 2 that serve are missing at once")
	controlplanetest.Operate(c, "drain", "device", "d01")
	e.Keeps(controlplanetest.Hold, "server", "d01=1 d02=1") // not the last, but nobody is known to serve
	c.List(append(all[1:3:3], controlplanetest.Machine(5, "tag:weight-3")))
	e.Await("server", "d02=1 d05=3")
}

func TestDrain_names_findTheDevice(t *testing.T) {
	t.Parallel()
	all := append(controlplanetest.Machines(3, "tag:weight-1"), controlplanetest.Machine(4, "tag:weight-1"))
	all[3].Name = "d01"
	c := controlplanetest.Trial(t, all)
	c.Connect("127.0.0.1", "server").Await("server", "d01=1 d01=1 d02=1 d03=1")
	for query, want := range map[string]string{
		"d01": `"d01" is more than one device: d01 (127.0.0.11, ID 1), d01 (127.0.0.14, ID 4); name one by its address`,
		"d04": `no device has the name, ID or address "d04"; there are d01 (127.0.0.11, ID 1), d01 (127.0.0.14, ID 4), d02 (127.0.0.12, ID 2), d03 (127.0.0.13, ID 3)`,
		"":    "drain needs a device: tailxds drain DEVICE",
	} {
		if got := controlplanetest.Operate(c, "drain", "device", query); !strings.HasPrefix(got, want) {
			t.Errorf("drain %q says %q", query, got)
		}
	}
	for _, bad := range []string{"soon", "-1s", "0"} {
		if got := controlplanetest.Operate(c, "drain", "device", "d02", "for", bad); !strings.Contains(got, "it must be a duration") {
			t.Errorf("drain for %q says %q", bad, got)
		}
	}
	if s := c.Status(); len(s.Drains) > 0 {
		t.Errorf("something is drained: %+v", s.Drains)
	}
}

// A word that nobody could read back would cost all that is remembered.
func TestDrain_invalidRecord_isRefused(t *testing.T) {
	t.Parallel()
	c := controlplanetest.Trial(t, controlplanetest.Each(controlplanetest.Machines(2, "tag:weight-1"), 0, 1, func(d *topology.Device) { d.Name = strings.Repeat("x", 300) }))
	c.Await("devices", func() bool { return len(c.Status().Devices) == 2 })
	if got := controlplanetest.Operate(c, "drain", "device", "1"); !strings.Contains(got, "more than 256 bytes") {
		t.Errorf("drain says %q", got)
	}
	if err := (drain.Record{Device: "1", Name: "d", By: "x"}).Check(); err == nil {
		t.Error("a word without a time is taken")
	}
}
