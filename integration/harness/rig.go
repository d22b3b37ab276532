// Package harness runs real Envoys beside the real control plane, each on a host
// of its own: a network namespace on one link. No Docker is needed, but Linux
// and root; a rig of some hosts is up in about a second.
//
//	r := harness.New(t, programs)
//	a, b := r.Server("a"), r.Server("b")
//	control := r.ControlPlane("", a.Device("tag:weight-1"), b.Device("tag:weight-2"))
//	entry := control.Envoy("entry", "server")
//	tally := entry.Ask(1000, harness.Get(entry.URL(10000)))
//
// All that a rig has started ends with the test, and also if the test process
// is killed: its programs die with it, and the namespaces have no names.
package harness

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tailxds/tailxds/integration/repository"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// maxWait bounds how long a rig waits for what must come. Reaching it is a
// failure; what comes sooner is not waited for longer.
const maxWait = 20 * time.Second

// maxStop is for what stops in its own time, a drain of the default length
// included.
const maxStop = 60 * time.Second

const bridgeName = "switch"

// Programs are what a rig runs.
type Programs struct {
	Envoy        string
	ControlPlane string
	Server       string // the lab's
}

// Build gets Envoy, and builds the control plane and the lab's server from the
// working tree, into a directory. The error says what is missing on this machine.
func Build(ctx context.Context, dir string) (Programs, error) {
	p := Programs{ControlPlane: filepath.Join(dir, "tailxds")}
	var err error
	if p.Envoy, err = repository.Script(ctx, "offline/envoy"); err != nil {
		return p, fmt.Errorf("get Envoy: %w", err)
	}
	p.Server = filepath.Join(dir, "server")
	return p, repository.Build(ctx, dir, "./cmd/tailxds", "./cmd/server")
}

// BuildControlPlane builds only the control plane, for tests that run no Envoy.
func BuildControlPlane(ctx context.Context, dir string) (Programs, error) {
	return Programs{ControlPlane: filepath.Join(dir, "tailxds")}, repository.Build(ctx, dir, "./cmd/tailxds")
}

// UnavailableReason is why no rig can be had on this machine; empty if one can.
func UnavailableReason() string {
	if os.Geteuid() != 0 {
		return "only root may make network namespaces"
	}
	return ""
}

// Rig is hosts on one link.
type Rig struct {
	t        testing.TB
	ctx      context.Context //nolint:containedctx // the test's, for all that the rig starts
	programs Programs
	dir      string
	hub      netns.NsHandle // where the link is

	mu        sync.Mutex
	hosts     []*Host
	processes []*process
	numbers   int
}

// New makes a rig without hosts, which ends with the test. It skips the test
// where there can be none.
func New(t testing.TB, programs Programs) *Rig {
	t.Helper()
	if why := UnavailableReason(); why != "" {
		t.Skip(why)
	}
	r := newRig(t, programs)
	var err error
	if r.hub, err = newNamespace(); err == nil {
		err = r.addBridge()
	}
	if err != nil {
		t.Fatalf("make the rig's link: %v", err)
	}
	return r
}

// Here makes a rig of this machine alone: what it starts listens on loopback, and needs no
// root. It ends with the test.
func Here(t testing.TB, programs Programs) *Rig { return newRig(t, programs) }

func newRig(t testing.TB, programs Programs) *Rig {
	r := &Rig{t: t, programs: programs, dir: t.TempDir(), hub: netns.None()}
	ctx, cancel := context.WithCancel(context.Background())
	r.ctx = ctx
	t.Cleanup(func() { cancel(); r.end() })
	return r
}

// here is this machine.
func (r *Rig) here(name string) *Host {
	return &Host{Name: name, V4: netip.AddrFrom4([4]byte{127, 0, 0, 1}), V6: netip.IPv6Loopback(), rig: r, ns: netns.None()}
}

// Dir is the directory of the rig's files, removed when the test ends.
func (r *Rig) Dir() string { return r.dir }

// T is the test that the rig is part of, or the step of it that runs.
func (r *Rig) T() testing.TB { return r.t }

// Step runs a part of the test as a subtest. What the rig waits for in it fails the subtest.
func (r *Rig) Step(name string, f func()) {
	all, ok := r.t.(*testing.T)
	if !ok {
		r.t.Fatalf("the step %s is of no test", name)
	}
	defer func() { r.t = all }()
	all.Run(name, func(t *testing.T) {
		r.t = t
		f()
	})
}

func (r *Rig) addBridge() error {
	links, err := netlink.NewHandleAt(r.hub)
	if err != nil {
		return err
	}
	defer links.Close()
	attributes := netlink.NewLinkAttrs()
	attributes.Name = bridgeName
	bridge := &netlink.Bridge{LinkAttrs: attributes}
	if err := links.LinkAdd(bridge); err != nil {
		return err
	}
	return links.LinkSetUp(bridge)
}

// Host adds a machine with the next addresses of the tailnet's ranges.
func (r *Rig) Host(name string) *Host {
	r.t.Helper()
	n := r.number()
	high, low := byte(n>>8), byte(n)
	return r.HostAt(name, netip.AddrFrom4([4]byte{100, 64, high, low}), netip.AddrFrom16([16]byte{0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0, 14: high, 15: low}))
}

// HostAt adds a machine with addresses of the test's choice.
func (r *Rig) HostAt(name string, v4, v6 netip.Addr) *Host {
	r.t.Helper()
	ns, err := newNamespace()
	h := &Host{Name: name, V4: v4, V6: v6, rig: r, ns: ns}
	if err == nil {
		r.mu.Lock()
		r.hosts = append(r.hosts, h)
		r.mu.Unlock()
		err = h.plug(r.number())
	}
	if err != nil {
		r.t.Fatalf("make the host %s: %v", name, err)
	}
	return h
}

// number is one that nothing else of the rig has.
func (r *Rig) number() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.numbers++
	return r.numbers
}

func (r *Rig) add(p *process) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.processes = append(r.processes, p)
}

// end stops all that runs, and logs the end of its output if the test failed.
func (r *Rig) end() {
	for _, p := range r.processes {
		if err := p.stop(); err != nil {
			r.t.Error(err)
		}
		if r.t.Failed() {
			r.t.Logf("the end of the output of %s:\n%s", p.name, p.logTail())
		}
	}
	for _, h := range r.hosts {
		_ = h.ns.Close()
	}
	if r.hub.IsOpen() {
		_ = r.hub.Close()
	}
}

// Await fails the test unless check comes true.
func (r *Rig) Await(what string, check func() error) {
	r.t.Helper()
	r.awaitFor(maxWait, what, check)
}

// awaitFor is [Rig.Await] with another patience.
func (r *Rig) awaitFor(patience time.Duration, what string, check func() error) {
	r.t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		for _, p := range r.processes {
			if p.crashed() {
				r.t.Fatalf("%s: %s has ended; %v", what, p.name, err)
			}
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: not within %s: %v", what, patience, err)
		}
		<-tick.C
	}
}
