package telemetry

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/tailxds/tailxds/internal/traffic"
)

const (
	// defaultInterval is an Envoy's report interval until it is known: Envoy's own
	// default.
	defaultInterval = 5 * time.Second
	// halfWindow is half of the time that rates are measured over: short enough to
	// show a change soon, and long enough to count.
	halfWindow = 4 * time.Second
	// An Envoy is stale when it has missed missedReports, and at least staleAfter; it
	// is forgotten after forgetAfter.
	missedReports = 3
	staleAfter    = 10 * time.Second
	forgetAfter   = 15 * time.Minute
	// maxInterval is the longest report interval that is believed.
	maxInterval = time.Minute
)

// envoyKey identifies an Envoy, also among several at one address. Its xDS stream
// has the same key.
type envoyKey struct {
	address netip.Addr
	node    string
}

// envoy is a reporting Envoy. Its figures have two parts, so that old ones expire
// while new ones stay: previous from since to rotated, and current from rotated to
// seen.
type envoy struct {
	Caller
	since, rotated, seen time.Time
	interval             time.Duration
	services             map[string]*serviceStats
}

type serviceStats struct {
	previous, current traffic.Latency
	endpoints         map[netip.AddrPort]*endpointStats
}

// endpointStats are one Envoy's figures of one endpoint.
type endpointStats struct {
	previous, current counts
	last              counts // the last totals
	inFlight          uint64
	// unfinished are the reported requests that may still fail.
	unfinished float64
	healthy    bool
	reported   bool // in the last report
}

// boundErrors limits errors to the requests that can have failed: one that begins
// before a report is taken, and ends after it, is a request of that report and an
// error of the next. Envoy reads its counters one after the other, so that any
// request of a report may do so, not only those then in flight.
func (c *endpointStats) boundErrors(t *endpointReport) {
	t.errors = min(t.errors, t.requests+c.unfinished)
	c.unfinished = min(c.unfinished+t.requests-t.errors, float64(t.inFlight)+t.requests)
}

// difference replaces an endpoint's totals by what is new of them.
func (c *endpointStats) difference(t *endpointReport, first bool) {
	if !t.hasTotals {
		return // counters that never moved are not sent
	}
	total := t.counts
	if first && !t.young {
		c.last = total
	}
	t.subtract(c.last)
	c.last = total
}

// discard drops totals that cannot be compared with earlier ones.
func (e *endpointReport) discard() { e.counts = counts{} }

type counts struct{ requests, errors, fails float64 }

func (t *counts) add(o counts) {
	t.requests += o.requests
	t.errors += o.errors
	t.fails += o.fails
}

// record adds a report.
func (r *Receiver) record(who Caller, s report, now time.Time) {
	key := r.keyOf(who, s)
	e := r.envoys[key]
	// Of an Envoy that is new, or was silent for long, it is unknown which part of a
	// total is new.
	first := e == nil || e.stale(now)
	if e == nil {
		if e = r.admit(key, now); e == nil {
			for _, told := range s.services {
				for _, t := range told.endpoints {
					t.discard()
				}
			}
			r.countRequests(who.Address, who.Region, s.requests())
			return
		}
	}
	e.Caller = who
	from := e.startOf(now)
	if e.seen.Sub(e.rotated) >= halfWindow {
		r.rotateWindow(e)
	}
	e.seen = now
	for _, of := range e.services {
		for _, c := range of.endpoints { // a report is whole
			if !c.reported {
				c.last = counts{} // it left; if it comes back, it is counted from nothing
			}
			c.reported, c.healthy, c.inFlight = false, false, 0
		}
	}
	for name, told := range s.services {
		r.recordService(e, name, told, first)
	}
	r.countRequests(who.Address, who.Region, s.requests())
	r.recordHistory(who.Region, s, from, now)
}

// keyOf returns whose report it is. The node ID by the connection overrides the one
// in the report, which comes from a bootstrap that several Envoys may share. An
// Envoy whose node ID was unknown before keeps its figures.
func (r *Receiver) keyOf(who Caller, s report) envoyKey {
	said := envoyKey{who.Address, boundName(s.node)}
	key := envoyKey{who.Address, boundName(who.Node)}
	if key.node == "" || key == said {
		return said
	}
	if e := r.envoys[said]; e != nil && e.Node == "" {
		if r.envoys[key] == nil {
			delete(r.envoys, said)
			r.envoys[key] = e
		} else {
			r.forget(said)
		}
	}
	return key
}

// admit makes room for an Envoy that reports for the first time, if need be in place
// of a stale one; it returns nil if there is no room.
func (r *Receiver) admit(key envoyKey, now time.Time) *envoy {
	beside := 0
	var silent, silentBeside envoyKey // for the longest time
	older := func(a, b envoyKey) bool { return r.envoys[b] == nil || r.envoys[a].seen.Before(r.envoys[b].seen) }
	for other := range r.envoys {
		if older(other, silent) {
			silent = other
		}
		if other.address == key.address {
			beside++
			if older(other, silentBeside) {
				silentBeside = other
			}
		}
	}
	leaves := silent
	if beside >= maxEnvoysPerAddress {
		leaves = silentBeside
	}
	if beside >= maxEnvoysPerAddress || len(r.envoys) >= maxEnvoys {
		if !r.envoys[leaves].stale(now) {
			return nil
		}
		r.forget(leaves)
	}
	start := now.Add(-defaultInterval)
	e := &envoy{interval: defaultInterval, since: start, rotated: start, seen: start, services: make(map[string]*serviceStats)}
	r.envoys[key] = e
	return e
}

func (r *Receiver) forget(key envoyKey) {
	e := r.envoys[key]
	for _, of := range e.services {
		r.endpointStatsCount -= len(of.endpoints)
	}
	delete(r.envoys, key)
}

// startOf returns since when a report counts that arrives now: since the last one,
// if none was lost on the way.
func (e *envoy) startOf(now time.Time) time.Time {
	if e.stale(now) {
		e.since, e.rotated, e.seen = now.Add(-e.interval), now.Add(-e.interval), now.Add(-e.interval)
		for _, of := range e.services {
			of.previous, of.current = traffic.Latency{}, traffic.Latency{}
			for _, c := range of.endpoints {
				c.previous, c.current = counts{}, counts{}
			}
		}
		return e.seen
	}
	e.interval = min(now.Sub(e.seen), maxInterval)
	return e.seen
}

func (e *envoy) stale(now time.Time) bool {
	return now.Sub(e.seen) > max(missedReports*e.interval, staleAfter)
}

// rotateWindow makes the current figures the previous ones, and drops the previous
// ones and endpoints that are no longer reported.
func (r *Receiver) rotateWindow(e *envoy) {
	e.since, e.rotated = e.rotated, e.seen
	for name, of := range e.services {
		of.previous, of.current = of.current, traffic.Latency{}
		for address, c := range of.endpoints {
			c.previous, c.current = c.current, counts{}
			if !c.reported && c.previous == (counts{}) {
				delete(of.endpoints, address)
				r.endpointStatsCount--
			}
		}
		if len(of.endpoints) == 0 && of.previous.Count() == 0 {
			delete(e.services, name)
		}
	}
}

func (r *Receiver) recordService(e *envoy, name string, told *serviceReport, first bool) {
	of := e.services[name]
	if of == nil {
		of = &serviceStats{endpoints: make(map[netip.AddrPort]*endpointStats)}
		e.services[name] = of
	}
	of.current.Add(told.latency, 1)
	for address, t := range told.endpoints {
		c := of.endpoints[address]
		if c == nil {
			if r.endpointStatsCount >= maxEndpointStats {
				t.discard()
				continue
			}
			c = &endpointStats{}
			of.endpoints[address] = c
			r.endpointStatsCount++
		}
		c.difference(t, first)
		t.excludeConnectFails()
		c.boundErrors(t)
		c.current.add(t.counts)
		c.reported, c.healthy, c.inFlight = true, t.healthy, t.inFlight
	}
}

// View returns what Envoys measured last.
func (r *Receiver) View(now time.Time) traffic.View {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := traffic.View{At: now}
	now = r.clock.steady(now)
	for key, e := range r.envoys {
		if now.Sub(e.seen) > forgetAfter {
			r.forget(key)
			continue
		}
		of := e.view(key, now)
		of.Seen = r.clock.wall(of.Seen)
		v.Envoys = append(v.Envoys, of)
	}
	slices.SortFunc(v.Envoys, func(a, b traffic.Envoy) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), a.Address.Compare(b.Address), cmp.Compare(a.Node, b.Node))
	})
	return v
}

func (e *envoy) view(key envoyKey, now time.Time) traffic.Envoy {
	v := traffic.Envoy{
		Device: e.Device, Address: key.address, Node: key.node, Region: e.Region,
		Seen: e.seen, Stale: e.stale(now), Over: e.seen.Sub(e.since),
	}
	alone := e.seen.Sub(e.rotated) >= 2*halfWindow // what is new is enough
	if alone {
		v.Over = e.seen.Sub(e.rotated)
	}
	rate := func(n float64) float64 {
		if v.Stale || v.Over <= 0 {
			return 0
		}
		return n / v.Over.Seconds()
	}
	for name, of := range e.services {
		s := traffic.Service{Name: name}
		if !v.Stale {
			s.Latency = of.current.Clone()
			if !alone {
				s.Latency.Add(of.previous, 1)
			}
		}
		for address, c := range of.endpoints {
			if !c.reported {
				continue
			}
			sum := c.current
			if !alone {
				sum.add(c.previous)
			}
			s.Endpoints = append(s.Endpoints, traffic.Endpoint{
				Address: address, Healthy: c.healthy, InFlight: c.inFlight,
				Requests: rate(sum.requests), Errors: rate(min(sum.errors, sum.requests)), ConnectFails: rate(sum.fails),
			})
		}
		slices.SortFunc(s.Endpoints, func(a, b traffic.Endpoint) int { return a.Address.Compare(b.Address) })
		v.Services = append(v.Services, s)
	}
	slices.SortFunc(v.Services, func(a, b traffic.Service) int { return cmp.Compare(a.Name, b.Name) })
	return v
}
