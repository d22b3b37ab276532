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
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// patience bounds how long a rig waits for what must come. Reaching it is a
// failure; nobody waits longer than need be.
const patience = 20 * time.Second

// stopPatience is for what stops in its own time, a drain of the default length
// included.
const stopPatience = 60 * time.Second

const bridgeName = "switch"

// Programs are what a rig runs.
type Programs struct {
	Envoy        string
	ControlPlane string
	Server       string // the lab's
}

// Build gets Envoy, and builds the control plane and the lab's server from the
// working tree, into a directory. It says why it can't, if this machine has no use for either.
func Build(ctx context.Context, dir string) (Programs, error) {
	p := Programs{ControlPlane: filepath.Join(dir, "tailxds")}
	out, err := output(exec.CommandContext(ctx, filepath.Join(root(), "scripts", "envoy")))
	if err != nil {
		return p, fmt.Errorf("get Envoy: %w", err)
	}
	p.Envoy = strings.TrimSpace(out)
	p.Server = filepath.Join(dir, "server")
	return p, BuildTools(ctx, dir, "./cmd/tailxds", "./cmd/server")
}

// BuildTools builds programs of the working tree into a directory.
func BuildTools(ctx context.Context, dir string, packages ...string) error {
	args := append([]string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", dir + "/"}, packages...)
	build := exec.CommandContext(ctx, "go", args...)
	build.Dir = root()
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if _, err := output(build); err != nil {
		return fmt.Errorf("build %s: %w", strings.Join(packages, " "), err)
	}
	return nil
}

// root is the repository.
func root() string {
	_, here, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(here), "..", "..")
}

func output(cmd *exec.Cmd) (string, error) {
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w: %s", cmd.Path, err, said.String())
	}
	return string(out), nil
}

// Unusable is why no rig can be had on this machine; empty if one can.
func Unusable() string {
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
	if why := Unusable(); why != "" {
		t.Skip(why)
	}
	r := &Rig{t: t, programs: programs, dir: t.TempDir()}
	ctx, cancel := context.WithCancel(context.Background())
	r.ctx = ctx
	var err error
	r.hub, err = newNamespace()
	t.Cleanup(func() { cancel(); r.end() })
	if err == nil {
		err = r.addBridge()
	}
	if err != nil {
		t.Fatalf("make the rig's link: %v", err)
	}
	return r
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

// end stops all that runs, and shows what it said if the test failed.
func (r *Rig) end() {
	for _, p := range r.processes {
		if err := p.stop(); err != nil {
			r.t.Error(err)
		}
		if r.t.Failed() {
			r.t.Logf("the end of what %s said:\n%s", p.name, p.tail())
		}
	}
	for _, h := range r.hosts {
		_ = h.ns.Close()
	}
	_ = r.hub.Close()
}

// Await fails the test unless check comes true.
func (r *Rig) Await(what string, check func() error) {
	r.t.Helper()
	r.awaitFor(patience, what, check)
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
			if p.died() {
				r.t.Fatalf("%s: %s has ended; %v", what, p.name, err)
			}
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: not within %s: %v", what, patience, err)
		}
		<-tick.C
	}
}
