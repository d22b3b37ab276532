package cli

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
	"github.com/tailxds/tailxds/internal/policy"
	"github.com/tailxds/tailxds/internal/provider"
	"github.com/tailxds/tailxds/internal/store"
	"github.com/tailxds/tailxds/internal/telemetry"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/traffic"
	"github.com/tailxds/tailxds/internal/xds"
)

// daemon is the control plane at work: what it was told, what it has published
// and the parts that do the work.
type daemon struct {
	o     options
	log   *slog.Logger
	began time.Time

	// watcher, server and exchange are set once the tailnet is joined, before ready is
	// closed.
	watcher  *provider.Watcher
	server   *xds.Server
	exchange *peersync.Exchange // nil without other control planes
	tailnet  *tailnet           // nil without one
	ready    chan struct{}
	joining  atomic.Pointer[string] // why that takes so long
	// ownKeyExpires asks when the key of the control plane's own node expires;
	// nil without a tailnet. Set before ready is closed, too.
	ownKeyExpires func(context.Context) *time.Time

	page      *dashboard.Dashboard
	diffs     http.Handler // POST /diff
	reports   *telemetry.Receiver
	streams   chan struct{} // an Envoy came or went
	accepts   chan accept
	orders    chan order
	heard     chan []drain.Record // by another control plane
	edits     chan edit           // of the policy file
	snapshots chan chan known     // asked of the loop since it has what there is to judge by

	policy     atomic.Pointer[policyFile]
	published  atomic.Pointer[snapshot]
	resources  atomic.Pointer[envoy.Resources]   // that were published last
	callers    atomic.Pointer[map[string]uint32] // where requests enter, as published
	publishErr atomic.Pointer[string]
	lost       atomic.Pointer[string] // what the saved state lost, until an operator accepts that
	journal    events.Log

	// The rest is only the loop's.
	streamsSince time.Time // since when Envoys can connect
	list         guard.List
	memory       guard.Memory
	words        drain.Set
	good         *policyFile // the last that could be published; nil if none is known
	entries      balance.Entries
	keeper       keeper
	tables       []traffic.Table // as measured last
	logged       log
	told         told
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

func newDaemon(o options, kept store.Store, log *slog.Logger) (*daemon, error) {
	if _, err := o.rules(time.Time{}); err != nil {
		return nil, err
	}
	past, lost := recall(kept, log)
	d := &daemon{
		o: o, log: log, began: time.Now(), ready: make(chan struct{}), logged: newLog(log),
		reports: telemetry.NewReceiver(func(ctx context.Context) telemetry.Caller {
			who := xds.CallerOf(ctx)
			return telemetry.Caller{Device: who.Device, Address: who.Address.Addr(), Node: who.Node, Region: who.Region, Known: who.Known}
		}, time.Now),
		streams: make(chan struct{}, 1), accepts: make(chan accept), orders: make(chan order), heard: make(chan []drain.Record), snapshots: make(chan chan known), edits: make(chan edit),
		memory: *past.Memory, words: drain.Load(past.Words, time.Now()), keeper: keeper{writer: store.NewWriter(kept, log)},
	}
	if lost != "" {
		d.lost.Store(&lost)
	}
	d.page, d.diffs = newPage(d), api.Diff(d.diff)
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
func (d *daemon) start(w *provider.Watcher, s *xds.Server) {
	d.watcher, d.server, d.streamsSince = w, s, time.Now()
	close(d.ready)
}

// started tells whether watcher and server may be used.
func (d *daemon) started() bool {
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
func (d *daemon) loop(ctx context.Context) error {
	clock, look := newAlarm(), newAlarm()
	measure := time.NewTicker(measureEvery)
	defer measure.Stop()
	if d.list.Provider != "" {
		d.publish(clock, look)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case u := <-d.watcher.Updates():
			d.hear(u)
		case a := <-d.accepts:
			err := d.letThrough(a.service, a.by)
			if err == nil {
				d.publish(clock, look)
			}
			a.answer <- err
			continue
		case o := <-d.orders:
			o.answer <- d.obey(o, time.Now(), func() <-chan error { return d.publish(clock, look) })
			continue
		case to := <-d.snapshots:
			to <- d.known()
			continue
		case words := <-d.heard:
			d.learn(words, time.Now())
		case <-d.streams:
		case e := <-d.edits:
			if !d.applyEdit(e) {
				continue
			}
		case <-look.C:
			d.watcher.Wake()
			continue
		case <-measure.C:
			d.measure()
			d.tables = d.traffic().Services
			d.note(time.Now())
			continue
		case <-clock.C:
		}
		if ctx.Err() != nil {
			return nil // the streams that end now are no witnesses that leave
		}
		if d.list.Provider != "" {
			d.publish(clock, look)
		}
	}
}

// hear takes what there is to know of the source. Until it has given a list,
// what was kept is served on; if nothing was, nothing is published, since Envoys
// that have something must not be told that it is gone.
func (d *daemon) hear(u provider.Update) {
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

// publish builds the topology, judges and serves it, and sets the alarms for
// when time alone may change something. The channel tells once what is to be
// remembered of that is kept.
func (d *daemon) publish(clock, look alarm) <-chan error {
	now := time.Now()
	memory, devices := d.memory.Observe(d.list)
	d.memory = memory
	d.prune(now)
	if d.exchange != nil {
		d.exchange.Publish(d.words.Records(), d.server.Connected())
	}
	d.judge(devices, now, clock, look)
	return d.keeper.keep(d.remembered(devices), now)
}

// judged is what came of a judgement: what may be published, and what the next
// one needs.
type judged struct {
	guard.Decision
	snapshot *snapshot
}

// known is what the loop knows, to judge by. Nothing in it is changed any more.
type known struct {
	list      guard.List
	memory    guard.Memory
	words     drain.Set
	policy    policyFile // that is in force
	published *snapshot
	tables    []traffic.Table
}

// known is what there is to judge by now. Only the loop calls it.
func (d *daemon) known() known {
	policy := *d.policy.Load()
	if policy.unfit != "" && d.good != nil {
		policy = *d.good
	}
	return known{d.list, d.memory, d.words, policy, d.published.Load(), d.tables}
}

// verdict is what may be published of what the devices say, by a policy. It
// changes nothing.
func (d *daemon) verdict(k known, memory guard.Memory, devices []topology.Device, policy policy.Policy, now time.Time) (judged, error) {
	rules, err := d.o.rules(now)
	if err != nil {
		return judged{}, err
	}
	rules.LastGood, rules.Drains = memory.LastGood(), k.inForce(now)
	built, problems := topology.Build(devices, rules)
	verdict := guard.Decide(memory, guard.Input{
		Now: now, List: k.list, Built: built,
		Connected: d.connected(), StreamsSince: d.streamsSince, Grace: d.o.OfflineGrace,
		HoldFraction: d.o.HoldFraction, HoldFor: d.o.HoldFor,
	})
	return judged{verdict, &snapshot{
		at: now, devices: devices, topology: verdict.Topology, problems: someProblems(slices.Concat(problems, verdict.Problems, policy.Problems(verdict.Topology))),
		held: verdict.Held, degraded: verdict.Degraded, drains: k.words.Drains(now), rules: rules,
	}}, nil
}

// judge publishes what may be published of what the devices say now.
func (d *daemon) judge(devices []topology.Device, now time.Time, clock, look alarm) {
	verdict, err := d.verdict(d.known(), d.memory, devices, d.policy.Load().policy, now)
	if err != nil {
		d.log.Error("cannot build the topology", "error", err) // checked at the start
		return
	}
	d.logged.tell(verdict.snapshot.problems, verdict.Decision)
	clock.set(verdict.Topology.Next)
	look.set(verdict.ListAt)
	if err := d.serve(verdict.Topology); err != nil {
		text := err.Error()
		d.publishErr.Store(&text)
		d.log.Error("cannot publish", "error", err)
		return // what was published last is still what is
	}
	d.publishErr.Store(nil)
	d.reports.SetPublished(verdict.Topology)
	d.memory = verdict.Memory
	d.published.Store(verdict.snapshot)
	d.note(now)
	d.page.Changed()
}

// inForce are operators' words that count now, by device.
func (k known) inForce(now time.Time) map[string]topology.Drain {
	if len(k.words.Drains(now)) == 0 {
		return nil // without a look at all devices
	}
	return k.words.Active(k.list.Provider, k.devices(), now)
}

// measure publishes where requests enter, if that has changed.
func (d *daemon) measure() {
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
	d.callers.Store(&next.Published)
	d.log.Debug("published where requests enter", "entries", next.Published)
}

// letThrough lets what is held go at the next judgement.
func (d *daemon) letThrough(service, by string) error {
	if names := d.serviceNames(); service != "" && !slices.Contains(names, service) {
		return unknownName("service", service, names)
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
		d.journal.Add(time.Now(), 0, events.Event{Kind: events.Accepted, Service: name, Text: "what was held of " + name + " is let through by an operator", By: by})
	}
	d.memory = memory
	return nil
}

// serviceNames are the services that are published or remembered.
func (d *daemon) serviceNames() []string {
	names := slices.Collect(maps.Keys(d.memory.Services))
	if p := d.published.Load(); p != nil {
		for _, s := range p.topology.Services {
			names = append(names, s.Name)
		}
	}
	return names
}

// accept hands a person's word to the loop, and waits until it is heard.
func (d *daemon) accept(ctx context.Context, service, by string) error {
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
func (d *daemon) changed() {
	select {
	case d.streams <- struct{}{}:
	default: // it will look anyway
	}
}
