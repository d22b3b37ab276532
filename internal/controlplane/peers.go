package controlplane

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tailxds/tailxds/internal/api"
	"github.com/tailxds/tailxds/internal/drain"
	"github.com/tailxds/tailxds/internal/drain/peersync"
	"github.com/tailxds/tailxds/internal/tailnet"
	"github.com/tailxds/tailxds/internal/topology"
)

// others are the control planes to exchange words with: all that were named but
// for this one, so that all can be given the same names.
func (o Config) others() []string {
	return slices.DeleteFunc(slices.Clone(o.Peers), func(name string) bool {
		host, _, err := net.SplitHostPort(name)
		if err != nil {
			host = name
		}
		first, _, _ := strings.Cut(host, ".")
		return strings.EqualFold(first, o.Hostname)
	})
}

// pagePort is where the tailnet finds the live page, http://tsnet-dynamic-eds/,
// and other control planes find this one.
const pagePort = ":80"

// servePeers prepares what the tailnet finds on port 80: the live page, and the
// exchange with other control planes, if there are any. It returns what serves
// them until its context ends.
func (d *ControlPlane) servePeers(t *tailnet.Node) (func(context.Context) error, error) {
	listener, err := t.Listen(pagePort)
	if err != nil {
		return nil, fmt.Errorf("listen for the live page on the tailnet: %w", err)
	}
	pages := http.NewServeMux()
	door := t.Authorizer()
	pages.Handle("/", d.dashboard.Handler(door))
	pages.Handle("POST /diff", door.AdmitOperators(d.diffs))
	if names := d.config.others(); len(names) > 0 {
		d.peers = peersync.New(peersync.Config{
			Names: names, Dial: t.DialOperator, PeerName: t.NameOf, Log: d.log,
			Receive: func(ctx context.Context, words []drain.Record) {
				select {
				case d.remoteDrains <- words:
				case <-ctx.Done():
				}
			},
		})
		pages.Handle("GET "+peersync.Path, door.Admit(d.peers))
	}
	return func(ctx context.Context) error {
		var on errgroup.Group
		on.Go(func() error { return api.Serve(ctx, listener, pages) })
		if d.peers != nil {
			on.Go(func() error { return d.peers.Run(ctx) })
		}
		return on.Wait()
	}, nil
}

// connected are the addresses of the devices whose Envoys are connected here or
// to another control plane.
func (d *ControlPlane) connected() map[netip.Addr]bool {
	all := d.server.Connected()
	if d.peers == nil {
		return all
	}
	all = maps.Clone(all)
	for _, a := range d.peers.Connected() {
		all[a] = true
	}
	return all
}

// mergeRemoteDrains takes what operators said to another control plane. Only the loop calls
// it.
func (d *ControlPlane) mergeRemoteDrains(words []drain.Record, now time.Time) {
	type said struct {
		device string
		at     int64
	}
	known := make(map[said]bool)
	for _, w := range d.drains.Records() {
		known[said{w.Device, w.At.UnixNano()}] = true
	}
	d.drains = d.drains.Merge(words, now)
	d.pruneDrains(now) // also while nothing can be published yet
	heard := 0
	for _, w := range d.drains.Records() {
		if known[said{w.Device, w.At.UnixNano()}] {
			continue
		}
		if heard++; heard <= maxLoggedDrains {
			d.log.Warn("an operator told another control plane", "device", w.Device, "name", w.Name, "drain", w.Drain, "by", w.By, "until", w.Until)
		}
	}
	if heard > maxLoggedDrains {
		d.log.Warn("operators told another control plane more", "devices", heard-maxLoggedDrains)
	}
}

// peerStates are the other control planes; none before the tailnet is joined.
func (d *ControlPlane) peerStates() []peersync.State {
	if !d.started() || d.peers == nil {
		return nil
	}
	return d.peers.States()
}

// peerTimeout is how long an operator waits for other control planes to know,
// unless [Config.PeerTimeout] says otherwise.
const peerTimeout = 3 * time.Second

// waitForPeers waits until the others know what was said here, and says who does not.
func (d *ControlPlane) waitForPeers(ctx context.Context) string {
	if d.peers == nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(d.config.PeerTimeout, peerTimeout))
	defer cancel()
	var text strings.Builder
	for _, s := range d.peers.WaitSynced(ctx) {
		if s.Synced {
			fmt.Fprintf(&text, "; %s knows, too", s.Name)
		} else {
			fmt.Fprintf(&text, "; BUT %s does not know yet, and will as soon as it asks", s.Name)
		}
	}
	return text.String()
}

// peerProblems are other control planes that don't hear what operators say here, or
// that can't be heard.
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
