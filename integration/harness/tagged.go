package harness

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tailxds/tailxds/integration/repository"

	"tailscale.com/ipn"
)

// TailnetControlPlane is a control plane that is a node of the tailnet itself.
type TailnetControlPlane struct {
	*Member
}

// ControlPlane starts a control plane that learns of its devices by a provider:
// netmap or headscale. It waits until it serves.
func (t *Tailnet) ControlPlane(provider string) *TailnetControlPlane {
	t.t.Helper()
	h := t.link("control-plane")
	args := []string{
		t.trust, t.programs.ControlPlane, "serve", "--hostname", h.Name, "--state-dir", filepath.Join(t.dir, h.Name),
		"--control-url", t.url, "--authkey", t.authKey("tag:control-plane"), "--provider", provider,
	}
	if provider == "headscale" {
		args = append(args, "--api-token", t.apiKey)
	}
	if _, err := h.start(false, h.Name, "env", args...); err != nil {
		t.t.Fatal(err)
	}
	t.Await("the control plane serves", func() error {
		_, err := h.fetch("http://" + adminAddress + "/readyz")
		return err
	})
	return &TailnetControlPlane{t.member(h)}
}

// EnvoyBeside starts an Envoy and a server on a machine of the tailnet.
func (c *TailnetControlPlane) EnvoyBeside(m *Member) *Envoy {
	r := c.rig
	r.t.Helper()
	r.serve(m.Host, func(p *http.Protocols) { p.SetHTTP1(true) }, 0)
	bootstrap, err := repository.Output(exec.CommandContext(r.ctx, r.programs.ControlPlane, "bootstrap", "--node", m.Name,
		"--control-plane", c.Address.String(), "--envoy-admin", "127.0.0.1:"+envoyAdminPort))
	if err != nil {
		r.t.Fatal(err)
	}
	return m.envoy(bootstrap, false, "--component-log-level", "upstream:debug", "--log-format", timedLog)
}

// timedLog has each line of Envoy's log begin with the time, in nanoseconds since
// 1970.
const timedLog = "%E%F %v"

// AwaitWeight waits until each thread of an Envoy that [TailnetControlPlane.EnvoyBeside]
// started balances a service by an assignment that came after a moment, and in which
// an endpoint has a weight. It returns when the last thread began to, from
// Envoy's own log: to the microsecond, and without a request that would disturb it.
func (e *Envoy) AwaitWeight(service string, endpoint netip.Addr, weight int, after time.Time) (at time.Time) {
	e.rig.t.Helper()
	want := fmt.Sprintf("%s::%s::weight::%d\n", service, netip.AddrPortFrom(endpoint, ServerPort), weight)
	e.rig.Await(e.Name+" balances by "+want, func() (err error) {
		if at, err = e.took(service, after); err != nil {
			return err // and the admin page is left alone
		}
		text, err := e.Admin("/clusters")
		if err == nil && !strings.Contains(text, want) {
			err = errors.New("what it took was another assignment")
		}
		return err
	})
	return at
}

// took is when the main thread and the only worker had both taken the last
// assignment that came after a moment.
func (e *Envoy) took(service string, after time.Time) (time.Time, error) {
	const threads = 2
	taken, last := threads, time.Time{} // nothing before the first assignment counts
	for line := range strings.Lines(e.process.logTail()) {
		stamp, said, _ := strings.Cut(strings.TrimSpace(line), " ")
		nanoseconds, err := strconv.ParseInt(stamp, 10, 64)
		if at := time.Unix(0, nanoseconds); err != nil || at.Before(after) {
			continue
		} else if strings.HasPrefix(said, "EDS hosts or locality weights changed for cluster: "+service+" ") {
			taken = 0
		} else if taken < threads && strings.HasPrefix(said, "batch membership update for TLS cluster "+service+" ") {
			if taken++; taken == threads {
				last = at
			}
		}
	}
	if last.IsZero() || taken < threads {
		return last, errors.New("its log tells of none that both took")
	}
	return last, nil
}

// NetmapWatcher is a watcher of the netmap, and nothing else.
type NetmapWatcher struct {
	rig  *Rig
	seen chan seen
	err  chan error
}

// seen are a node's tags by an event, and when that came.
type seen struct {
	at      time.Time
	address netip.Addr
	tags    []string
}

// Watch watches the peers that tailscaled sees, until the test ends.
func (m *Member) Watch() *NetmapWatcher {
	m.rig.t.Helper()
	w := &NetmapWatcher{m.rig, make(chan seen, 1000), make(chan error, 1)}
	bus, err := m.Node.WatchIPNBus(m.rig.ctx, ipn.NotifyInitialStatus|ipn.NotifyPeerChanges)
	if err != nil {
		m.rig.t.Fatal(err)
	}
	m.rig.t.Cleanup(func() { _ = bus.Close() })
	go func() {
		for {
			event, err := bus.Next()
			if err != nil {
				w.err <- err
				return
			}
			for _, node := range event.PeersChanged {
				if len(node.Addresses) > 0 {
					w.seen <- seen{time.Now(), node.Addresses[0].Addr(), node.Tags}
				}
			}
		}
	}()
	return w
}

// Await waits until the netmap gives a machine a tag, and returns when it did.
func (w *NetmapWatcher) Await(m *Member, tag string) time.Time {
	w.rig.t.Helper()
	late := time.After(maxWait)
	for {
		select {
		case s := <-w.seen:
			if s.address == m.Address && slices.Contains(s.tags, tag) {
				return s.at
			}
		case err := <-w.err:
			w.rig.t.Fatalf("watch the netmap: %v", err)
		case <-late:
			w.rig.t.Fatalf("the netmap does not give %s the tag %s", m.Name, tag)
		}
	}
}
