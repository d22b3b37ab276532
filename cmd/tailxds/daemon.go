package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tailxds/tailxds/internal/admin"
	"github.com/tailxds/tailxds/internal/provider"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/xds"
)

// daemon is the control plane at work: what it was told, what it has published
// and the parts that do the work.
type daemon struct {
	o   options
	log *slog.Logger

	// watcher and server are set once the tailnet is joined, before ready is
	// closed.
	watcher *provider.Watcher
	server  *xds.Server
	ready   chan struct{}

	policy     atomic.Pointer[policyFile]
	published  atomic.Pointer[snapshot]
	publishErr atomic.Pointer[string]

	logged map[topology.Problem]bool // only the loop's
}

// snapshot is what was published last, and from what.
type snapshot struct {
	at       time.Time
	devices  []topology.Device
	topology topology.Topology
	problems []topology.Problem
	// lastGood is what the next topology falls back on, device by device.
	lastGood map[string]topology.ServiceEndpoints
}

// policyFile is the policy in force and, if its file was edited badly since,
// the error.
type policyFile struct {
	policy xds.Policy
	err    string
}

func newDaemon(o options, log *slog.Logger) (*daemon, error) {
	if _, err := o.rules(time.Time{}); err != nil {
		return nil, err
	}
	policy, err := readPolicy(o.Config)
	if err != nil {
		return nil, err
	}
	d := &daemon{o: o, log: log, ready: make(chan struct{}), logged: make(map[topology.Problem]bool)}
	d.policy.Store(&policyFile{policy: policy})
	return d, nil
}

// start hands over the parts that exist once the tailnet is joined.
func (d *daemon) start(w *provider.Watcher, s *xds.Server) {
	d.watcher, d.server = w, s
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

// loop publishes whenever the devices, the policy or the hour change what is
// to be served.
func (d *daemon) loop(ctx context.Context) error {
	clock := time.NewTimer(0)
	clock.Stop()
	edits := time.NewTicker(time.Second)
	defer edits.Stop()
	var devices []topology.Device
	for have := false; ; {
		select {
		case <-ctx.Done():
			return nil
		case devices = <-d.watcher.Updates():
			have = true
		case <-edits.C:
			if d.o.Config == "" || !d.reloadPolicy() {
				continue
			}
		case <-clock.C:
		}
		if !have {
			continue
		}
		clock.Stop()
		if next := d.publish(devices); !next.IsZero() {
			clock.Reset(max(time.Until(next), time.Millisecond))
		}
	}
}

// publish builds and serves the topology, and returns when time alone will
// change it.
func (d *daemon) publish(devices []topology.Device) time.Time {
	rules, err := d.rules()
	if err != nil {
		d.log.Error("cannot build the topology", "error", err) // checked at the start
		return time.Time{}
	}
	t, problems := topology.Build(devices, rules)
	d.tell(problems)
	if err := d.server.Set(t, d.policy.Load().policy); err != nil {
		text := err.Error()
		d.publishErr.Store(&text)
		d.log.Error("cannot publish", "error", err)
		return t.Next
	}
	d.publishErr.Store(nil)
	d.published.Store(&snapshot{at: time.Now(), devices: devices, topology: t, problems: problems, lastGood: t.ByDevice()})
	return t.Next
}

func (d *daemon) rules() (topology.Rules, error) {
	rules, err := d.o.rules(time.Now())
	if p := d.published.Load(); p != nil {
		rules.LastGood = p.lastGood
	}
	return rules, err
}

// tell logs each problem once, and once more when it is gone.
func (d *daemon) tell(problems []topology.Problem) {
	now := make(map[topology.Problem]bool, len(problems))
	for _, p := range problems {
		now[p] = true
		if !d.logged[p] {
			d.log.Warn("problem", "device", p.Device, "name", p.Name, "subject", p.Subject, "reason", p.Reason)
		}
	}
	for p := range d.logged {
		if !now[p] {
			d.log.Info("problem solved", "device", p.Device, "name", p.Name, "subject", p.Subject)
		}
	}
	d.logged = now
}

// reloadPolicy reads the policy file again and tells whether another policy
// holds now. A bad edit leaves the last good policy in force.
func (d *daemon) reloadPolicy() bool {
	last := d.policy.Load()
	next, err := readPolicy(d.o.Config)
	switch {
	case err != nil && err.Error() == last.err, err == nil && last.err == "" && reflect.DeepEqual(next, last.policy):
		return false
	case err != nil:
		d.log.Error("the policy file is bad, the last good policy stays", "error", err)
		d.policy.Store(&policyFile{policy: last.policy, err: err.Error()})
		return false
	default:
		d.log.Info("policy reloaded", "file", d.o.Config)
		d.policy.Store(&policyFile{policy: next})
		return true
	}
}

func (d *daemon) adminHandler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), newMetrics(d))
	return admin.Handler(admin.Sources{
		Ready:   d.readiness,
		Status:  func() any { return d.status() },
		Accept:  d.accept,
		Metrics: promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),
	})
}

func (d *daemon) accept() error {
	if !d.started() {
		return errNothingHeld
	}
	return d.watcher.Accept()
}

// readiness is true from the first publication on: what was good once is
// served, however old it is, and the detail says how old.
func (d *daemon) readiness() (bool, string) {
	if !d.started() {
		return false, "not ready: joining the tailnet"
	}
	p, s := d.published.Load(), d.watcher.Status()
	switch {
	case p == nil && s.Error != "":
		return false, "not ready: no device list yet: " + s.Error
	case p == nil:
		return false, "not ready: waiting for the first device list"
	case s.Held != nil:
		return true, fmt.Sprintf("ready, but a new device list is held: %s", s.Held.Reason)
	case s.Stale:
		return true, fmt.Sprintf("ready, but the device list is %s old: %s", time.Since(s.LastGood).Round(time.Second), s.Error)
	default:
		return true, "ready"
	}
}

// statusDocument is what /status prints.
type statusDocument struct {
	Version  string             `json:"version"`
	Ready    bool               `json:"ready"`
	Detail   string             `json:"detail"`
	Provider *provider.Status   `json:"provider,omitempty"`
	Policy   policyStatus       `json:"policy"`
	At       *time.Time         `json:"publishedAt"`
	Error    string             `json:"publishError,omitempty"`
	Services []topology.Service `json:"services"`
	Problems []topology.Problem `json:"problems"`
	Envoys   []xds.Stream       `json:"envoys"`
	Devices  []topology.Device  `json:"devices"`
}

type policyStatus struct {
	File  string `json:"file,omitempty"`
	Error string `json:"error,omitempty"`
}

func (d *daemon) status() statusDocument {
	doc := statusDocument{
		Version: version(), Policy: policyStatus{d.o.Config, d.policy.Load().err},
		Services: []topology.Service{}, Problems: []topology.Problem{}, Envoys: []xds.Stream{}, Devices: []topology.Device{},
	}
	doc.Ready, doc.Detail = d.readiness()
	if d.started() {
		s := d.watcher.Status()
		doc.Provider = &s
		doc.Envoys = d.server.Streams()
	}
	if text := d.publishErr.Load(); text != nil {
		doc.Error = *text
	}
	if p := d.published.Load(); p != nil {
		doc.At = &p.at
		doc.Services = slices.Concat(doc.Services, p.topology.Services)
		doc.Problems = slices.Concat(doc.Problems, p.problems)
		doc.Devices = slices.Concat(doc.Devices, p.devices)
	}
	return doc
}
