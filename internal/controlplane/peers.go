package controlplane

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/tailxds/tailxds/internal/drain"
	"github.com/tailxds/tailxds/internal/drain/peersync"
	"github.com/tailxds/tailxds/internal/topology"
)

// tailnetHandler answers on the tailnet: the live page, `tailxds diff`, and other
// control planes.
func (c *ControlPlane) tailnetHandler() http.Handler {
	pages := http.NewServeMux()
	authorizer := c.links.node.Authorizer()
	pages.Handle("/", c.dashboard.Handler(authorizer))
	pages.Handle("POST /diff", authorizer.AdmitOperators(c.diffs))
	if c.peers != nil {
		pages.Handle("GET "+peersync.Path, authorizer.Admit(c.peers))
	}
	return pages
}

// newExchange makes the exchange with other control planes.
func newExchange(c *ControlPlane, names []string) *peersync.Exchange {
	return peersync.New(peersync.Config{
		Names: names, Dial: c.links.node.DialOperator, PeerName: c.links.node.NameOf, Log: c.log,
		Receive: func(ctx context.Context, records []drain.Record) {
			select {
			case c.remoteDrains <- records:
			case <-ctx.Done():
			}
		},
	})
}

// connected are the addresses of the devices whose Envoys are connected here or
// to another control plane.
func (c *ControlPlane) connected() map[netip.Addr]bool {
	all := c.server.Connected()
	if c.peers == nil {
		return all
	}
	all = maps.Clone(all)
	for _, a := range c.peers.Connected() {
		all[a] = true
	}
	return all
}

// mergeRemoteDrains merges the drains of another control plane. Only the loop calls it.
func (c *ControlPlane) mergeRemoteDrains(records []drain.Record, now time.Time) {
	type said struct {
		device string
		at     int64
	}
	known := make(map[said]bool)
	for _, w := range c.drains.Records() {
		known[said{w.Device, w.At.UnixNano()}] = true
	}
	c.drains = c.drains.Merge(records, now)
	c.pruneDrains(now) // also while nothing can be published yet
	merged := 0
	for _, w := range c.drains.Records() {
		if known[said{w.Device, w.At.UnixNano()}] {
			continue
		}
		if merged++; merged <= maxLoggedDrains {
			c.log.Warn("merged a drain of another control plane", "device", w.Device, "name", w.Name, "drain", w.Drain, "by", w.By, "until", w.Until)
		}
	}
	if merged > maxLoggedDrains {
		c.log.Warn("merged further drains of another control plane", "devices", merged-maxLoggedDrains)
	}
}

// peerStates are the other control planes.
func (c *ControlPlane) peerStates() []peersync.State {
	if c.peers == nil {
		return nil
	}
	return c.peers.States()
}

// peerTimeout is how long an operator waits for other control planes to know,
// unless [Config.PeerTimeout] says otherwise.
const peerTimeout = 3 * time.Second

// waitForPeers waits until the others know what was said here, and says who does not.
func (c *ControlPlane) waitForPeers(ctx context.Context) string {
	if c.peers == nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(c.config.PeerTimeout, peerTimeout))
	defer cancel()
	var text strings.Builder
	for _, s := range c.peers.WaitSynced(ctx) {
		if s.Synced {
			fmt.Fprintf(&text, "; %s knows, too", s.Name)
		} else {
			fmt.Fprintf(&text, "; BUT %s does not know yet, and will as soon as it asks", s.Name)
		}
	}
	return text.String()
}

// peerProblems are other control planes that do not ask for drains here, or that do not
// answer.
func peerProblems(states []peersync.State, self string, now time.Time) []topology.Problem {
	const silent = time.Minute
	var problems []topology.Problem
	for _, s := range states {
		p := topology.Problem{Name: s.Name, Subject: "peer"}
		switch {
		case s.Error != "":
			p.Reason = "what operators tell it is not heard here: " + s.Error
		case !s.LastAnswer.IsZero() && now.Sub(s.LastPoll) > silent:
			p.Reason = "it does not ask what operators say here: give it --peer " + self
		default:
			continue
		}
		problems = append(problems, p)
	}
	return problems
}
