package telemetry

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/tailxds/tailxds/internal/traffic"
)

const (
	// stepTime is the resolution of a history, and steps its length: 15 minutes.
	stepTime = 5 * time.Second
	steps    = 180
	// maxHistories bounds the services with a history, and maxHistoryRegions the
	// regions in each.
	maxHistories      = 256
	maxHistoryRegions = 64
	// maxReportDelay is how long a step waits for slow Envoys before it is shown.
	maxReportDelay = 30 * time.Second
)

// history is one service's, in ring buffers: a step's number modulo their length is
// its index. Requests are counts.
type history struct {
	newest    int64 // a step's number
	endpoints map[netip.AddrPort]*series
	entries   map[string]*ring
	crossing  ring
	latency   [steps]traffic.Latency
}

type ring [steps]float32

type series struct {
	requests, errors ring
	last             int64 // the last step in which there was anything
}

func stepOf(at time.Time) int64 { return at.UnixNano() / int64(stepTime) }

func stepStart(step int64) time.Time { return time.Unix(0, step*int64(stepTime)) }

// recordHistory adds a report to the steps that it covers, each by its share of the
// time.
func (r *Receiver) recordHistory(region string, s report, from, until time.Time) {
	for name, told := range s.services {
		if told.isIdle() {
			continue
		}
		h := r.histories[name]
		if h == nil {
			if len(r.histories) >= maxHistories && !r.forgetIdleHistory(stepOf(until)) {
				continue
			}
			h = &history{newest: stepOf(until), endpoints: make(map[netip.AddrPort]*series), entries: make(map[string]*ring)}
			r.histories[name] = h
		}
		r.historyEndpoints -= len(h.endpoints)
		h.advance(stepOf(until))
		for _, p := range splitBySteps(from, until) {
			if p.step > h.newest-steps {
				h.add(region, r.published[name], told, p, maxHistoryEndpoints-r.historyEndpoints)
			}
		}
		r.historyEndpoints += len(h.endpoints)
	}
}

// stepShare is the share of a period that lies in a step.
type stepShare struct {
	step  int64
	share float64
}

func splitBySteps(from, until time.Time) []stepShare {
	if !from.Before(until) {
		return []stepShare{{stepOf(until), 1}}
	}
	var all []stepShare
	for step := stepOf(from); step <= stepOf(until); step++ {
		low, high := stepStart(step), stepStart(step+1)
		if low.Before(from) {
			low = from
		}
		if high.After(until) {
			high = until
		}
		if high.After(low) {
			all = append(all, stepShare{step, high.Sub(low).Seconds() / until.Sub(from).Seconds()})
		}
	}
	return all
}

// advance clears the steps up to a new one.
func (h *history) advance(to int64) {
	for step := max(h.newest+1, to-steps+1); step <= to; step++ {
		at := step % steps
		for _, e := range h.endpoints {
			e.requests[at], e.errors[at] = 0, 0
		}
		for _, e := range h.entries {
			e[at] = 0
		}
		h.crossing[at], h.latency[at] = 0, traffic.Latency{}
	}
	h.newest = max(h.newest, to)
	maps.DeleteFunc(h.endpoints, func(_ netip.AddrPort, e *series) bool { return e.last <= h.newest-steps })
	maps.DeleteFunc(h.entries, func(_ string, e *ring) bool { return *e == ring{} })
}

// add adds a share of a report to a step, with at most room new endpoints.
func (h *history) add(region string, regions map[netip.AddrPort]string, told *serviceReport, p stepShare, room int) {
	at := p.step % steps
	share := float32(p.share)
	h.latency[at].Add(told.latency, p.share)
	for address, t := range told.endpoints {
		if t.requests == 0 && t.errors == 0 {
			continue
		}
		e := h.endpoints[address]
		if e == nil {
			if len(h.endpoints) >= room {
				continue
			}
			e = &series{}
			h.endpoints[address] = e
		}
		e.last = max(e.last, p.step)
		e.requests[at] += float32(t.requests) * share
		e.errors[at] += float32(t.errors) * share
		if region == "" {
			continue
		}
		if to := regions[address]; to != "" && to != region {
			h.crossing[at] += float32(t.requests) * share
		}
		entry := h.entries[region]
		if entry == nil {
			if len(h.entries) >= maxHistoryRegions {
				continue
			}
			entry = &ring{}
			h.entries[region] = entry
		}
		entry[at] += float32(t.requests) * share
	}
}

// forgetIdleHistory makes room for a service's history in place of one that had no
// requests for as long as a history lasts. It reports whether there was one.
func (r *Receiver) forgetIdleHistory(now int64) bool {
	for name, h := range r.histories {
		if h.newest <= now-steps {
			r.historyEndpoints -= len(h.endpoints)
			delete(r.histories, name)
			return true
		}
	}
	return false
}

// History returns what all Envoys measured of a service in the last 15 minutes, up
// to the last step that all of them have reported.
func (r *Receiver) History(service string, now time.Time) traffic.History {
	r.mu.Lock()
	defer r.mu.Unlock()
	now = r.clock.steady(now)
	newest := stepOf(now.Add(-r.maxReportInterval(now))) - 1
	first := newest - steps + 2 // one is being written over
	out := traffic.History{
		Start: r.clock.wall(stepStart(first)), Step: stepTime, Endpoints: []traffic.EndpointHistory{}, Entries: make(map[string][]float64),
		Crossing: make([]float64, newest-first+1), Latency: make([]traffic.Latency, newest-first+1),
	}
	h := r.histories[service]
	if h == nil {
		return out
	}
	h.advance(stepOf(now))
	values := func(of *ring) []float64 {
		list := make([]float64, 0, newest-first+1)
		for step := first; step <= newest; step++ {
			v := 0.0
			if step > h.newest-steps {
				v = float64(of[step%steps]) / stepTime.Seconds()
			}
			list = append(list, v)
		}
		return list
	}
	for address, e := range h.endpoints {
		out.Endpoints = append(out.Endpoints, traffic.EndpointHistory{Address: address, Requests: values(&e.requests), Errors: values(&e.errors)})
	}
	slices.SortFunc(out.Endpoints, func(a, b traffic.EndpointHistory) int { return a.Address.Compare(b.Address) })
	for region, e := range h.entries {
		out.Entries[region] = values(e)
	}
	out.Crossing = values(&h.crossing)
	for i := range out.Latency {
		if step := first + int64(i); step > h.newest-steps {
			out.Latency[i] = h.latency[step%steps].Clone()
		}
	}
	return out
}

// maxReportInterval returns the longest report interval of any Envoy.
func (r *Receiver) maxReportInterval(now time.Time) time.Duration {
	wait := time.Duration(0)
	for _, e := range r.envoys {
		if !e.stale(now) {
			wait = max(wait, e.interval)
		}
	}
	return min(wait, maxReportDelay)
}
