// Package controlplane is the control plane at work: it watches devices, decides what
// may be published of them, and serves that to Envoys and to operators.
//
// [ControlPlane.reconcile] is the path of a device list to the Envoys.
package controlplane

import (
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/tailxds/tailxds/internal/api"
	"github.com/tailxds/tailxds/internal/balance"
	"github.com/tailxds/tailxds/internal/dashboard"
	"github.com/tailxds/tailxds/internal/drain"
	"github.com/tailxds/tailxds/internal/drain/peersync"
	"github.com/tailxds/tailxds/internal/envoy"
	"github.com/tailxds/tailxds/internal/events"
	"github.com/tailxds/tailxds/internal/guard"
	"github.com/tailxds/tailxds/internal/provider"
	"github.com/tailxds/tailxds/internal/store"
	"github.com/tailxds/tailxds/internal/telemetry"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/traffic"
	"github.com/tailxds/tailxds/internal/xds"
)

// ControlPlane watches the devices of a tailnet and serves them to Envoys. It is
// complete when [newControlPlane] returns: the tailnet is joined by then.
type ControlPlane struct {
	config Config
	log    *slog.Logger

	links     links
	server    *xds.Server
	reports   *telemetry.Receiver
	peers     *peersync.Exchange // nil without other control planes
	dashboard *dashboard.Dashboard
	diffs     http.Handler // POST /diff
	// streamsSince is since when Envoys can connect.
	streamsSince time.Time

	// What the loop waits for besides devices and timers.
	envoysChanged chan struct{}
	accepts       chan acceptRequest
	drainRequests chan drainRequest
	remoteDrains  chan []drain.Record // from another control plane
	policyEdits   chan edit

	// What the loop shares. Nothing behind these pointers is changed any more.
	policy       atomic.Pointer[policyFile]
	published    atomic.Pointer[snapshot]
	planInputs   atomic.Pointer[planInput]
	resources    atomic.Pointer[envoy.Resources]   // that were published last
	localCluster atomic.Pointer[map[string]uint32] // where requests enter, as published
	publishErr   atomic.Pointer[string]
	lost         atomic.Pointer[string] // what the saved state lost, until an operator accepts that
	events       events.Log

	// The rest is only the loop's.
	nextChange  alarm // when time alone changes what is served
	nextList    alarm // when a list is due sooner than the watcher would ask
	list        guard.List
	memory      guard.Memory
	drains      drain.Set
	good        *policyFile // the last policy that could be published; nil if none is known
	entries     balance.IngressLoad
	stateWriter stateWriter
	tables      []traffic.Table // as measured last
	problemLog  problemLog
	lastEvents  lastEvents
}

// snapshot is what was published last, and from what.
type snapshot struct {
	at       time.Time
	devices  []topology.Device
	topology topology.Topology
	problems []topology.Problem
	held     []guard.Held
	degraded []guard.Degraded
	drains   []drain.Record
	rules    topology.Rules
}

// newControlPlane makes a control plane of what it starts from and of its links to
// the tailnet. [ControlPlane.run] sets it to work.
func newControlPlane(config Config, b beginning, l links, log *slog.Logger) *ControlPlane {
	c := &ControlPlane{
		config: config, log: log, links: l,
		reports: telemetry.NewReceiver(func(ctx context.Context) telemetry.Caller {
			who := xds.CallerOf(ctx)
			return telemetry.Caller{Device: who.Device, Address: who.Address.Addr(), Node: who.Node, Region: who.Region, Known: who.Known}
		}, time.Now),
		streamsSince:  time.Now(),
		envoysChanged: make(chan struct{}, 1), accepts: make(chan acceptRequest), drainRequests: make(chan drainRequest),
		remoteDrains: make(chan []drain.Record), policyEdits: make(chan edit),
		nextChange: newAlarm(), nextList: newAlarm(),
		list: b.list, memory: *b.saved.Memory, drains: drain.Load(b.saved.Words, time.Now()), good: b.good,
		stateWriter: stateWriter{writer: store.NewWriter(b.store, log)}, problemLog: newProblemLog(log),
	}
	c.policy.Store(&b.policy)
	if b.lost != "" {
		c.lost.Store(&b.lost)
	}
	c.server = xds.NewServer(xds.Config{
		Types: envoy.Types(), AllowTags: config.Allow, Identify: l.identify, OnChange: c.onEnvoysChanged,
		Services: []func(grpc.ServiceRegistrar){c.reports.Register}, Log: log,
	})
	c.dashboard, c.diffs = newDashboard(c), api.DiffHandler(c.diff)
	if names := config.others(); l.node != nil && len(names) > 0 {
		c.peers = newExchange(c, names)
	}
	input := c.planInput()
	c.planInputs.Store(&input)
	return c
}

// run serves Envoys, the tailnet's side of the live page and other control planes,
// and feeds the loop, until ctx ends.
func (c *ControlPlane) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.dashboard.Run(ctx) })
	g.Go(func() error { return c.links.watcher.Run(ctx) })
	g.Go(func() error {
		defer c.links.close() // no sooner, or the listeners' end would be an error
		var serving errgroup.Group
		serving.Go(func() error { return c.server.Serve(ctx, c.links.xds) })
		if c.links.node != nil {
			serving.Go(func() error { return api.Serve(ctx, c.links.pages, c.tailnetHandler()) })
		}
		if c.peers != nil {
			serving.Go(func() error { return c.peers.Run(ctx) })
		}
		return serving.Wait()
	})
	g.Go(func() error { return c.watchPolicy(ctx) })
	writing, written := context.WithCancel(context.WithoutCancel(ctx))
	g.Go(func() error { return c.stateWriter.writer.Run(writing) })
	g.Go(func() error {
		defer written() // what the loop saved last is written, too
		return c.loop(ctx)
	})
	return g.Wait()
}

// measureInterval is how often the entries of regions are computed anew.
const measureInterval = 2 * time.Second

// loop reconciles whenever the devices, the connected Envoys, an operator, the
// policy file or the time may change what is to be served.
func (c *ControlPlane) loop(ctx context.Context) error {
	measure := time.NewTicker(measureInterval)
	defer measure.Stop()
	if c.list.Provider != "" {
		c.reconcile(time.Now())
	}
	for {
		input := c.planInput()
		c.planInputs.Store(&input)
		select {
		case <-ctx.Done():
			return nil
		case u := <-c.links.watcher.Updates():
			c.onUpdate(u)
		case a := <-c.accepts:
			err := c.acceptRemovals(a.service, a.by)
			if err == nil {
				c.reconcile(time.Now())
			}
			a.answer <- err
			continue
		case r := <-c.drainRequests:
			r.answer <- c.applyDrain(r, time.Now())
			continue
		case records := <-c.remoteDrains:
			c.mergeRemoteDrains(records, time.Now())
		case <-c.envoysChanged:
		case e := <-c.policyEdits:
			if !c.applyEdit(e) {
				continue
			}
		case <-c.nextList.C:
			c.links.watcher.Wake()
			continue
		case <-measure.C:
			c.publishLocalCluster()
			c.tables = c.traffic().Services
			c.recordEvents(time.Now())
			continue
		case <-c.nextChange.C:
		}
		if ctx.Err() != nil {
			return nil // the streams that end now say nothing about their devices
		}
		if c.list.Provider != "" {
			c.reconcile(time.Now())
		}
	}
}

// onUpdate takes an update of the device source. Until the source has given a
// list, what was saved is served; if nothing was saved, nothing is published,
// since Envoys that have resources must not lose them.
func (c *ControlPlane) onUpdate(u provider.Update) {
	if u.At.IsZero() {
		c.list.UnhealthyReason = u.UnhealthyReason
		return
	}
	c.list = guard.List{Provider: c.links.watcher.Status().Provider, Devices: u.Devices, At: u.At, HealthySince: u.HealthySince, UnhealthyReason: u.UnhealthyReason}
	c.server.Reauthorize()
}

// onEnvoysChanged has the loop look at the connected Envoys.
func (c *ControlPlane) onEnvoysChanged() {
	select {
	case c.envoysChanged <- struct{}{}:
	default: // it will look anyway
	}
}

// alarm is a timer that can be set anew.
type alarm struct{ *time.Timer }

func newAlarm() alarm {
	a := alarm{time.NewTimer(0)}
	a.Stop()
	return a
}

// set fires at a time; never if it is zero.
func (a alarm) set(at time.Time) {
	a.Stop()
	if !at.IsZero() {
		a.Reset(max(time.Until(at), time.Millisecond))
	}
}
