// Package hostile runs the real control plane and attacks it: clients that flood,
// stall and lie. What an attack cost is measured on its process, see
// [ControlPlane.Measure]. No Docker and no root is needed, but Linux.
//
//	c := hostile.Start(t, programs, hostile.Options{})
//	cost := c.Measure(func() { flood(c.Dial(t, "127.1.0.1")) })
//	cost.Check(t, hostile.Bound{Memory: 64 << 20, CPU: 2 * time.Second})
package hostile

import (
	"net"
	"testing"
	"time"

	"github.com/tailxds/tailxds/integration/harness"
)

// patience bounds how long a test waits for what must come.
const patience = 20 * time.Second

// Options are what a control plane starts with.
type Options struct {
	// Policy is the text of its policy file.
	Policy string
	// Unready starts it with an API that never answers in place of the device file.
	// Without a list of devices it refuses every peer.
	Unready bool
}

// ControlPlane is a tailxds that runs until the test ends.
type ControlPlane struct {
	*harness.ControlPlane
	// Await fails the test unless a check returns nil in time.
	Await func(what string, check func() error)

	t testing.TB
}

// TwoServers are two devices with a tag each.
func TwoServers(tag string) []harness.Device {
	return []harness.Device{
		{ID: "1", Name: "a", Addresses: []string{"100.64.0.1"}, Tags: []string{tag}, Online: true},
		{ID: "2", Name: "b", Addresses: []string{"100.64.0.2"}, Tags: []string{tag}, Online: true},
	}
}

// Start starts a control plane of two servers on this machine, and waits until it is ready.
func Start(t testing.TB, programs harness.Programs, o Options) *ControlPlane {
	t.Helper()
	rig := harness.Here(t, programs)
	c := &ControlPlane{ControlPlane: rig.StoppedControlPlane(o.Policy, TwoServers("tag:weight-1")...), Await: rig.Await, t: t}
	if !o.Unready {
		c.Start()
		return c
	}
	silent, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	c.Launch("--provider", "headscale", "--api-url", "http://"+silent.Addr().String(), "--api-token", "none")
	return c
}

// From dials from an address of loopback, such as 127.1.0.1: the control plane
// takes peers apart by their addresses.
func From(address string) *net.Dialer {
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}, Timeout: patience}
}
