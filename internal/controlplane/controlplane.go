package controlplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/tailxds/tailxds/internal/api"
	"github.com/tailxds/tailxds/internal/balance"
	"github.com/tailxds/tailxds/internal/dashboard"
	"github.com/tailxds/tailxds/internal/drain"
	"github.com/tailxds/tailxds/internal/drain/peersync"
	"github.com/tailxds/tailxds/internal/envoy"
	"github.com/tailxds/tailxds/internal/events"
	"github.com/tailxds/tailxds/internal/guard"
	"github.com/tailxds/tailxds/internal/input"
	"github.com/tailxds/tailxds/internal/policy"
	"github.com/tailxds/tailxds/internal/provider"
	"github.com/tailxds/tailxds/internal/store"
	"github.com/tailxds/tailxds/internal/tailnet"
	"github.com/tailxds/tailxds/internal/telemetry"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/traffic"
	"github.com/tailxds/tailxds/internal/xds"
)

// ControlPlane is the control plane at work: what it was told, what it has published
// and the parts that do the work.
type ControlPlane struct {
	config Config
	log    *slog.Logger
	began  time.Time

	// watcher, server and exchange are set once the tailnet is joined, before ready is
	// closed.
	watcher *provider.Watcher
	server  *xds.Server
	peers   *peersync.Exchange // nil without other control planes
	tailnet *tailnet.Node      // nil without one
	ready   chan struct{}
	joining atomic.Pointer[string] // why that takes so long
	// ownKeyExpires asks when the key of the control plane's own node expires;
	// nil without a tailnet. Set before ready is closed, too.
	ownKeyExpires func(context.Context) *time.Time

	dashboard     *dashboard.Dashboard
	diffs         http.Handler // POST /diff
	reports       *telemetry.Receiver
	streams       chan struct{} // an Envoy came or went
	accepts       chan accept
	drainRequests chan drainRequest
	remoteDrains  chan []drain.Record // by another control plane
	policyEdits   chan edit           // of the policy file
	inputRequests chan chan planInput // asked of the loop since it has what there is to judge by

	policy       atomic.Pointer[policyFile]
	published    atomic.Pointer[snapshot]
	resources    atomic.Pointer[envoy.Resources]   // that were published last
	localCluster atomic.Pointer[map[string]uint32] // where requests enter, as published
	publishErr   atomic.Pointer[string]
	lost         atomic.Pointer[string] // what the saved state lost, until an operator accepts that
	events       events.Log

	// The rest is only the loop's.
	streamsSince time.Time // since when Envoys can connect
	list         guard.List
	memory       guard.Memory
	drains       drain.Set
	good         *policyFile // the last that could be published; nil if none is known
	entries      balance.IngressLoad
	stateWriter  stateWriter
	tables       []traffic.Table // as measured last
	problemLog   problemLog
	lastEvents   lastEvents
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

// accept is a person's word that what is held may go.
type accept struct {
	service string // empty means all
	by      string
	answer  chan error
}

func New(o Config, kept store.Store, log *slog.Logger) (*ControlPlane, error) {
	past, lost := loadState(kept, log)
	d := &ControlPlane{
		config: o, log: log, began: time.Now(), ready: make(chan struct{}), problemLog: newProblemLog(log),
		reports: telemetry.NewReceiver(func(ctx context.Context) telemetry.Caller {
			who := xds.CallerOf(ctx)
			return telemetry.Caller{Device: who.Device, Address: who.Address.Addr(), Node: who.Node, Region: who.Region, Known: who.Known}
		}, time.Now),
		streams: make(chan struct{}, 1), accepts: make(chan accept), drainRequests: make(chan drainRequest), remoteDrains: make(chan []drain.Record), inputRequests: make(chan chan planInput), policyEdits: make(chan edit),
		memory: *past.Memory, drains: drain.Load(past.Words, time.Now()), stateWriter: stateWriter{writer: store.NewWriter(kept, log)},
	}
	if lost != "" {
		d.lost.Store(&lost)
	}
	d.dashboard, d.diffs = newPage(d), api.DiffHandler(d.diff)
	if err := d.firstPolicy(past.Policy); err != nil {
		return nil, err
	}
	if len(d.memory.Services) > 0 {
		d.list = guard.List{Provider: d.memory.Provider, Devices: *past.Devices, UnhealthyReason: "no list has come since the start"}
		log.Info("serving what was published last until the source answers", "devices", len(*past.Devices), "from", d.memory.List)
	}
	return d, nil
}

// start hands over the parts that exist once the tailnet is joined.
func (d *ControlPlane) start(w *provider.Watcher, s *xds.Server) {
	d.watcher, d.server, d.streamsSince = w, s, time.Now()
	close(d.ready)
}

// started tells whether watcher and server may be used.
func (d *ControlPlane) started() bool {
	select {
	case <-d.ready:
		return true
	default:
		return false
	}
}

// measureEvery is how often the entries of regions are reckoned anew.
const measureEvery = 2 * time.Second

// loop builds, judges and publishes whenever the devices, the witnesses, a
// person, the policy or the hour may change what is to be served.
func (d *ControlPlane) loop(ctx context.Context) error {
	clock, look := newAlarm(), newAlarm()
	measure := time.NewTicker(measureEvery)
	defer measure.Stop()
	if d.list.Provider != "" {
		d.reconcile(clock, look)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case u := <-d.watcher.Updates():
			d.onUpdate(u)
		case a := <-d.accepts:
			err := d.acceptRemovals(a.service, a.by)
			if err == nil {
				d.reconcile(clock, look)
			}
			a.answer <- err
			continue
		case o := <-d.drainRequests:
			o.answer <- d.applyDrain(o, time.Now(), func() <-chan error { return d.reconcile(clock, look) })
			continue
		case to := <-d.inputRequests:
			to <- d.planInput()
			continue
		case words := <-d.remoteDrains:
			d.mergeRemoteDrains(words, time.Now())
		case <-d.streams:
		case e := <-d.policyEdits:
			if !d.applyEdit(e) {
				continue
			}
		case <-look.C:
			d.watcher.Wake()
			continue
		case <-measure.C:
			d.publishLocalCluster()
			d.tables = d.traffic().Services
			d.recordEvents(time.Now())
			continue
		case <-clock.C:
		}
		if ctx.Err() != nil {
			return nil // the streams that end now are no witnesses that leave
		}
		if d.list.Provider != "" {
			d.reconcile(clock, look)
		}
	}
}

// onUpdate takes what there is to know of the source. Until it has given a list,
// what was kept is served on; if nothing was, nothing is published, since Envoys
// that have something must not be told that it is gone.
func (d *ControlPlane) onUpdate(u provider.Update) {
	if u.At.IsZero() {
		d.list.UnhealthyReason = u.UnhealthyReason
		return
	}
	d.list = guard.List{Provider: d.watcher.Status().Provider, Devices: u.Devices, At: u.At, HealthySince: u.HealthySince, UnhealthyReason: u.UnhealthyReason}
	d.server.Reauthorize()
}

// alarm is a timer that can be set anew.
type alarm struct{ *time.Timer }

func newAlarm() alarm {
	a := alarm{time.NewTimer(0)}
	a.Stop()
	return a
}

// set rings at a time; never if it is zero.
func (a alarm) set(at time.Time) {
	a.Stop()
	if !at.IsZero() {
		a.Reset(max(time.Until(at), time.Millisecond))
	}
}

// reconcile builds the topology, judges and serves it, and sets the alarms for
// when time alone may change something. The channel tells once what is to be
// remembered of that is kept.
func (d *ControlPlane) reconcile(clock, look alarm) <-chan error {
	now := time.Now()
	memory, devices := d.memory.Observe(d.list)
	d.memory = memory
	d.pruneDrains(now)
	if d.peers != nil {
		d.peers.Publish(d.drains.Records(), d.server.Connected())
	}
	d.plan(devices, now, clock, look)
	return d.stateWriter.save(d.savedState(devices), now)
}

// planned is what came of a judgement: what may be published, and what the next
// one needs.
type planned struct {
	guard.Decision
	snapshot *snapshot
}

// planInput is what the loop knows, to judge by. Nothing in it is changed any more.
type planInput struct {
	list      guard.List
	memory    guard.Memory
	words     drain.Set
	policy    policyFile // that is in force
	published *snapshot
	tables    []traffic.Table
}

// planInput is what there is to judge by now. Only the loop calls it.
func (d *ControlPlane) planInput() planInput {
	policy := *d.policy.Load()
	if policy.unfit != "" && d.good != nil {
		policy = *d.good
	}
	return planInput{d.list, d.memory, d.drains, policy, d.published.Load(), d.tables}
}

// decide is what may be published of what the devices say, by a policy. It
// changes nothing.
func (d *ControlPlane) decide(k planInput, memory guard.Memory, devices []topology.Device, policy policy.Policy, now time.Time) planned {
	rules := d.config.rules(now)
	rules.LastGood, rules.Drains = memory.LastGood(), k.inForce(now)
	built, problems := topology.Build(devices, rules)
	verdict := guard.Decide(memory, guard.Input{
		Now: now, List: k.list, Built: built,
		Connected: d.connected(), StreamsSince: d.streamsSince, Grace: d.config.Rules.OfflineGrace,
		HoldFraction: d.config.HoldFraction, HoldFor: d.config.HoldFor,
	})
	return planned{verdict, &snapshot{
		at: now, devices: devices, topology: verdict.Topology, problems: boundProblems(slices.Concat(problems, verdict.Problems, policy.Problems(verdict.Topology))),
		held: verdict.Held, degraded: verdict.Degraded, drains: k.words.Drains(now), rules: rules,
	}}
}

// plan publishes what may be published of what the devices say now.
func (d *ControlPlane) plan(devices []topology.Device, now time.Time, clock, look alarm) {
	verdict := d.decide(d.planInput(), d.memory, devices, d.policy.Load().policy, now)
	d.problemLog.update(verdict.snapshot.problems, verdict.Decision)
	clock.set(verdict.Topology.Next)
	look.set(verdict.NextListAt)
	if err := d.publishResources(verdict.Topology); err != nil {
		text := err.Error()
		d.publishErr.Store(&text)
		d.log.Error("cannot publish", "error", err)
		return // what was published last is still what is
	}
	d.publishErr.Store(nil)
	d.reports.SetPublished(verdict.Topology)
	d.memory = verdict.Memory
	d.published.Store(verdict.snapshot)
	d.recordEvents(now)
	d.dashboard.Changed()
}

// inForce are operators' words that count now, by device.
func (k planInput) inForce(now time.Time) map[string]topology.Drain {
	if len(k.words.Drains(now)) == 0 {
		return nil // without a look at all devices
	}
	return k.words.Active(k.list.Provider, k.devices(), now)
}

// publishLocalCluster publishes where requests enter, if that has changed.
func (d *ControlPlane) publishLocalCluster() {
	last := d.resources.Load()
	if last == nil {
		return // no Envoy is connected
	}
	next, changed := d.entries.Next(d.reports.Requests(), d.server.EnvoysByRegion(), measureEvery)
	d.entries = next
	if !changed {
		return
	}
	resources, err := last.WithLocalCluster(next.Published)
	if err == nil {
		_, err = d.server.PublishUntracked(resources)
	}
	if err != nil {
		d.log.Error("cannot publish where requests enter", "error", err)
		return
	}
	d.resources.Store(resources)
	d.localCluster.Store(&next.Published)
	d.log.Debug("published where requests enter", "entries", next.Published)
}

// acceptRemovals lets what is held go at the next judgement.
func (d *ControlPlane) acceptRemovals(service, by string) error {
	if names := d.serviceNames(); service != "" && !slices.Contains(names, service) {
		return input.UnknownName("service", service, names)
	}
	memory, services, err := d.memory.Accept(service)
	if service == "" && d.lost.Swap(nil) != nil {
		d.log.Warn("an operator accepted that the saved state was lost", "by", by)
		if errors.Is(err, guard.ErrNothingHeld) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	d.log.Warn("what was held is let through by an operator", "services", services)
	for _, name := range services {
		d.events.Add(time.Now(), 0, events.Event{Kind: events.Accepted, Service: name, Text: "what was held of " + name + " is let through by an operator", By: by})
	}
	d.memory = memory
	return nil
}

// serviceNames are the services that are published or remembered.
func (d *ControlPlane) serviceNames() []string {
	names := slices.Collect(maps.Keys(d.memory.Services))
	if p := d.published.Load(); p != nil {
		for _, s := range p.topology.Services {
			names = append(names, s.Name)
		}
	}
	return names
}

// accept hands a person's word to the loop, and waits until it is heard.
func (d *ControlPlane) accept(ctx context.Context, service, by string) error {
	if !d.started() {
		return guard.ErrNothingHeld
	}
	a := accept{service, by, make(chan error, 1)}
	select {
	case d.accepts <- a:
		return <-a.answer
	case <-ctx.Done():
		return fmt.Errorf("accept: %w", context.Cause(ctx))
	}
}

// changed tells the loop that an Envoy came or went.
func (d *ControlPlane) changed() {
	select {
	case d.streams <- struct{}{}:
	default: // it will look anyway
	}
}
