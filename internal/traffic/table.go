package traffic

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/tailxds/tailxds/internal/balance"
	"github.com/tailxds/tailxds/internal/topology"
)

// Input is what tables are computed from.
type Input struct {
	// Topology is the published one.
	Topology topology.Topology
	// Rule returns how a service is balanced.
	Rule func(service string) Rule
	// Entries are the published weights of the regions where requests enter.
	Entries map[string]uint32
	// Connected are the addresses of the devices whose own Envoy has a stream to
	// the control plane.
	Connected map[netip.Addr]bool
	// View is what Envoys measured.
	View View
}

// Rule is how a service is balanced; the words are those of the policy file.
type Rule struct {
	Mode             balance.Mode
	Failover         []string
	Overprovisioning uint32
}

// Table is one service: where its requests enter, which servers get them, and how
// that compares with what was expected. Requests and errors are a second, shares are
// from 0 to 1.
type Table struct {
	Service  string       `json:"service"`
	Locality balance.Mode `json:"locality"`
	Requests float64      `json:"requests"`
	Errors   float64      `json:"errors"`
	InFlight uint64       `json:"inFlight"`
	// P50 and P99 are how long requests took, in milliseconds; 0 without requests.
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	// Crossing is the share of the requests that were sent to another region than the
	// one where they entered, and CrossingExpected the expected one.
	Crossing         float64  `json:"crossing"`
	CrossingExpected float64  `json:"crossingExpected"`
	Entries          []Entry  `json:"entries"`
	Servers          []Server `json:"servers"`
}

// Entry is a region where requests enter, with all its Envoys.
type Entry struct {
	Region string `json:"region"`
	// Envoys is how many report; stale ones do not count.
	Envoys   int     `json:"envoys"`
	Requests float64 `json:"requests"`
	Errors   float64 `json:"errors"`
	// Share of all requests that enter here.
	Share float64 `json:"share"`
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
	// To are the requests to each server, in the order of [Table.Servers].
	To []float64 `json:"to"`
}

// Server is one endpoint.
type Server struct {
	topology.Endpoint
	// Expected is its share of the requests by the weights, the mode, where requests
	// enter and which servers each Envoy finds healthy; Observed is its actual one.
	Expected float64 `json:"expected"`
	Observed float64 `json:"observed"`
	// Deviates reports that the two differ by more than two points and chance, as for
	// some seconds after a change.
	Deviates bool    `json:"off"`
	Requests float64 `json:"requests"`
	Errors   float64 `json:"errors"`
	InFlight uint64  `json:"inFlight"`
	// Healthy is how many Envoys find it healthy, of those Reporting it.
	Healthy   int `json:"healthy"`
	Reporting int `json:"of"`
	// UnhealthyFor are the Envoys that find it unhealthy, by device.
	UnhealthyFor []string `json:"unhealthyFor"`
	// Envoy reports whether the device's own Envoy is connected to the control plane.
	Envoy bool `json:"envoy"`
}

// Unhealthy reports whether every Envoy that reports the server finds it unhealthy.
func (s Server) Unhealthy() bool { return s.Reporting > 0 && s.Healthy == 0 }

// Unhealthy returns a problem for each published server that every Envoy finds
// unhealthy.
func Unhealthy(tables []Table) []topology.Problem {
	var problems []topology.Problem
	for _, t := range tables {
		for _, s := range t.Servers {
			if s.Unhealthy() {
				problems = append(problems, topology.Problem{
					Device: s.Device, Name: s.Name, Subject: t.Service,
					Reason: fmt.Sprintf("every Envoy that reports finds %s unhealthy: is its server up, and does the policy's health_check fit it?", s.Address),
				})
			}
		}
	}
	return problems
}

// Tables returns a table for each service, in the order of the topology.
func Tables(c Input) []Table {
	tables := make([]Table, 0, len(c.Topology.Services))
	for _, s := range c.Topology.Services {
		tables = append(tables, c.buildTable(s))
	}
	return tables
}

// tableBuilder builds one table.
type tableBuilder struct {
	input    Input
	service  topology.Service
	rule     Rule
	index    map[netip.AddrPort]int // a server's place in the table
	table    Table
	entries  map[string]*entryBuilder
	groups   map[string]*envoyGroup
	latency  Latency
	requests float64 // requests
}

type entryBuilder struct {
	Entry
	latency Latency
}

// envoyGroup is the Envoys in one region that find the same endpoints healthy: they
// balance alike.
type envoyGroup struct {
	region    string
	unhealthy map[netip.AddrPort]bool
	envoys    float64
	requests  float64
}

func (c Input) buildTable(s topology.Service) Table {
	rule := c.Rule(s.Name)
	r := &tableBuilder{
		input: c, service: s, rule: rule, index: make(map[netip.AddrPort]int),
		table:   Table{Service: s.Name, Locality: rule.Mode, Entries: []Entry{}, Servers: []Server{}},
		entries: make(map[string]*entryBuilder), groups: make(map[string]*envoyGroup),
	}
	for _, e := range slices.Concat(s.Serving(), s.Idle) {
		r.index[e.Address] = len(r.table.Servers)
		r.table.Servers = append(r.table.Servers, Server{Endpoint: e, Envoy: c.Connected[e.Address.Addr()], UnhealthyFor: []string{}})
	}
	for _, e := range c.View.Envoys {
		i := slices.IndexFunc(e.Services, func(of Service) bool { return of.Name == s.Name })
		if i >= 0 && !e.Stale {
			r.addReport(e, e.Services[i])
		}
	}
	r.setObserved()
	r.setExpected()
	for i := range r.table.Servers {
		s := &r.table.Servers[i]
		s.Deviates = deviates(s.Observed, s.Expected, r.requests)
	}
	return r.table
}

// deviates reports whether an observed share of n requests differs from the expected
// one by more than two points and four standard deviations, which are infinite
// without requests.
func deviates(observed, expected, n float64) bool {
	return math.Abs(observed-expected) > 0.02+4*math.Sqrt(expected*(1-expected)/n)
}

// addReport adds one Envoy's report.
func (r *tableBuilder) addReport(e Envoy, of Service) {
	at := r.entries[e.Region]
	if at == nil {
		at = &entryBuilder{Entry: Entry{Region: e.Region, To: make([]float64, len(r.table.Servers))}}
		r.entries[e.Region] = at
	}
	at.Envoys++
	at.latency.Add(of.Latency, 1)
	g := &envoyGroup{region: e.Region, unhealthy: make(map[netip.AddrPort]bool), envoys: 1}
	name := []byte(e.Region)
	for _, p := range of.Endpoints {
		i, ok := r.index[p.Address]
		if !ok {
			continue // it is published no more
		}
		s := &r.table.Servers[i]
		s.Requests += p.Requests
		s.Errors += p.Errors
		s.InFlight += p.InFlight
		at.Requests += p.Requests
		at.Errors += p.Errors
		at.To[i] += p.Requests
		g.requests += p.Requests
		r.requests += p.Requests * e.Over.Seconds()
		if s.State != topology.Serving {
			continue
		}
		s.Reporting++
		if p.Healthy {
			s.Healthy++
			continue
		}
		s.UnhealthyFor = append(s.UnhealthyFor, cmp.Or(e.Device, e.Node))
		g.unhealthy[p.Address] = true
		name = append(append(name, ' '), p.Address.String()...)
	}
	if known := r.groups[string(name)]; known != nil {
		known.envoys++
		known.requests += g.requests
		return
	}
	r.groups[string(name)] = g
}

// setObserved sums up what was measured.
func (r *tableBuilder) setObserved() {
	t := &r.table
	for _, region := range slices.Sorted(maps.Keys(r.entries)) {
		e := r.entries[region]
		e.P50, e.P99 = quantiles(e.latency)
		r.latency.Add(e.latency, 1)
		t.Requests += e.Requests
		t.Errors += e.Errors
		t.Entries = append(t.Entries, e.Entry)
	}
	t.P50, t.P99 = quantiles(r.latency)
	for i := range t.Servers {
		s := &t.Servers[i]
		t.InFlight += s.InFlight
		s.Observed = fraction(s.Requests, t.Requests)
	}
	for i := range t.Entries {
		e := &t.Entries[i]
		e.Share = fraction(e.Requests, t.Requests)
		for j, n := range e.To {
			if crosses(e.Region, t.Servers[j].Region) {
				t.Crossing += fraction(n, t.Requests)
			}
		}
	}
}

// crosses reports whether a request leaves its region, where both ends are known.
func crosses(from, to string) bool { return from != "" && to != "" && from != to }

func fraction(of, all float64) float64 {
	if all == 0 {
		return 0
	}
	return of / all
}

func quantiles(l Latency) (p50, p99 float64) {
	ms := func(q float64) float64 { return float64(l.Quantile(q)) / float64(time.Millisecond) }
	return ms(0.5), ms(0.99)
}

// setExpected computes each server's expected share, from each group of Envoys and
// how many requests enter at it. Without requests regions count by their published
// weights, or else each Envoy.
func (r *tableBuilder) setExpected() {
	groups := slices.Collect(maps.Values(r.groups))
	weight := func(g *envoyGroup) float64 { return g.requests }
	if r.table.Requests == 0 {
		here := make(map[string]float64)
		for _, g := range groups {
			here[g.region] += g.envoys
		}
		weight = func(g *envoyGroup) float64 { return float64(r.input.Entries[g.region]) * g.envoys / here[g.region] }
		for region := range r.input.Entries {
			if here[region] == 0 { // its Envoys have not reported yet
				groups = append(groups, &envoyGroup{region: region, envoys: 1})
				here[region] = 1
			}
		}
		if len(r.input.Entries) == 0 {
			weight = func(g *envoyGroup) float64 { return g.envoys }
		}
	}
	if len(groups) == 0 {
		groups = append(groups, &envoyGroup{envoys: 1})
		weight = func(*envoyGroup) float64 { return 1 }
	}
	var all float64
	for _, g := range groups {
		all += weight(g)
	}
	caller := balance.Caller{Entries: make(map[string]float64), Failover: r.rule.Failover, Overprovisioning: r.rule.Overprovisioning}
	for region, n := range r.input.Entries {
		caller.Entries[region] = float64(n)
	}
	for _, g := range groups {
		caller.Region = g.region
		shares := balance.Shares(r.service, r.rule.Mode, caller, func(e topology.Endpoint) bool { return !g.unhealthy[e.Address] })
		for i, share := range shares {
			share *= fraction(weight(g), all)
			r.table.Servers[i].Expected += share
			if crosses(g.region, r.table.Servers[i].Region) {
				r.table.CrossingExpected += share
			}
		}
	}
}
