package view

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tailxds/tailxds/internal/balance"
	"github.com/tailxds/tailxds/internal/dashboard"
	"github.com/tailxds/tailxds/internal/drain"
	"github.com/tailxds/tailxds/internal/guard"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/traffic"
)

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func at(n byte) netip.Addr { return netip.AddrFrom4([4]byte{100, 64, 0, n}) }

// endpoint is the device dN of a region, at 100.64.0.N.
func endpoint(n byte, name, region string, weight uint32, state topology.State) topology.Endpoint {
	return topology.Endpoint{Device: fmt.Sprint("d", n), Name: name, Address: netip.AddrPortFrom(at(n), 8080), Weight: weight, Region: region, State: state}
}

// envoy is a connected one.
func envoy(n byte, node, region string) Envoy {
	return Envoy{Device: node + ".example.ts.net", Node: node, Region: region, Address: at(n), Since: noon.Add(-time.Hour)}
}

// report is what an Envoy sent: requests a second to each endpoint, 100.64.0.N by N.
func report(e Envoy, requests map[byte]float64, sick ...byte) traffic.Envoy {
	of := traffic.Service{Name: "server"}
	for n, rate := range requests {
		of.Endpoints = append(of.Endpoints, traffic.Endpoint{Address: netip.AddrPortFrom(at(n), 8080), Healthy: !slices.Contains(sick, n), Requests: rate, Errors: rate / 10})
	}
	of.Latency.Observe([]float64{10, 20}, []uint64{0, 100, 0})
	return traffic.Envoy{Device: e.Device, Address: e.Address, Node: e.Node, Region: e.Region, Seen: noon, Over: 10 * time.Second, Services: []traffic.Service{of}}
}

// known are facts of a service, "server", with what a report of each Envoy makes of it.
func known(endpoints []topology.Endpoint, envoys []Envoy, reports ...traffic.Envoy) Input {
	f := Input{Now: noon, Ready: true, Tailnet: "plane", Version: "v1", Envoys: envoys, Services: []topology.Service{topology.NewService("server", endpoints)}}
	for _, e := range endpoints {
		f.Devices = append(f.Devices, topology.Device{ID: e.Device, Name: e.Name, Tags: []string{"tag:weight-1"}})
	}
	f.Traffic = traffic.Input{
		Topology: topology.Topology{Services: f.Services}, View: traffic.View{At: noon, Envoys: reports},
		Rule: func(string) traffic.Rule { return traffic.Rule{Mode: balance.Exact, Overprovisioning: 140} },
	}
	f.Tables = traffic.Tables(f.Traffic)
	f.Table = TableOf(f.Tables, "server")
	return f
}

// pool is west with a 1 and b 3, and east with c 2 and d that is drained; an Envoy in
// each region sends west 30 and east 10 a second.
func pool() Input {
	west, east := envoy(11, "west-1", "west"), envoy(12, "east-1", "east")
	return known([]topology.Endpoint{
		endpoint(1, "a", "west", 1, topology.Serving), endpoint(2, "b", "west", 3, topology.Serving),
		endpoint(3, "c", "east", 2, topology.Serving), endpoint(4, "d", "east", 2, topology.Drained),
	}, []Envoy{west, east}, report(west, map[byte]float64{1: 5, 2: 15, 3: 10}), report(east, map[byte]float64{1: 1, 2: 5, 3: 4}))
}

func names[T any](all []T, of func(T) string) string {
	var found []string
	for _, x := range all {
		found = append(found, of(x))
	}
	return strings.Join(found, ", ")
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func TestView_figures_followTheOrder(t *testing.T) {
	f := pool()
	v := f.View()
	equal(t, "regions", v.Snapshot.Regions, []string{"east", "west"})
	equal(t, "servers", names(v.Snapshot.Servers, func(s dashboard.Server) string { return s.Name }), "c, d, a, b")
	equal(t, "Envoys", names(v.Snapshot.Entries, func(e dashboard.Entry) string { return e.Name }), "east-1, west-1")
	equal(t, "servers' figures", v.Tick.Servers, [][6]float64{
		{14, 1.4, 0.35, 0.3333, 2, 2}, {0, 0, 0, 0, 0, 0}, {6, 0.6, 0.15, 0.1667, 2, 2}, {20, 2, 0.5, 0.5, 2, 2},
	})
	equal(t, "Envoys' figures", v.Tick.Entries, [][4]float64{{10, 1, 15, 19.9}, {30, 3, 15, 19.9}})
	equal(t, "flows", v.Tick.Flows, [][]float64{{4, 0, 1, 5}, {10, 0, 5, 15}})
	equal(t, "total", v.Tick.Total, [4]float64{40, 4, 15, 19.9})
	equal(t, "crossing", v.Tick.Crossing, 0.4)
	equal(t, "window and reporting", []int64{v.Tick.Window, int64(v.Tick.Reporting)}, []int64{10_000, 2})
	equal(t, "services", v.Snapshot.Services, []dashboard.ServiceName{{Name: "server", Serving: 3, Known: 4}})
	equal(t, "whose page it is", v.Snapshot.Tailnet+" "+v.Snapshot.Version+" "+v.Snapshot.Service+" "+v.Snapshot.Mode, "plane v1 server exact")
}

// What nobody measured is no zero.
func TestView_noReports_figuresAreUnknown(t *testing.T) {
	silent := pool()
	silent.Traffic.View.Envoys = nil
	silent.Tables = traffic.Tables(silent.Traffic)
	silent.Table = TableOf(silent.Tables, "server")
	v := silent.View()
	equal(t, "total", v.Tick.Total, [4]float64{-1, -1, -1, -1})
	equal(t, "crossing", v.Tick.Crossing, -1.0)
	equal(t, "a server", v.Tick.Servers[0], [6]float64{-1, -1, -1, 0.3333, 0, 0})
	equal(t, "an Envoy", v.Tick.Entries[0], [4]float64{-1, -1, -1, -1})
	equal(t, "reporting", v.Tick.Reporting, 0)
	equal(t, "flows", v.Tick.Flows, [][]float64{{-1, -1, -1, -1}, {-1, -1, -1, -1}})

	west := envoy(11, "west-1", "west")
	idle := known([]topology.Endpoint{endpoint(1, "a", "west", 1, topology.Serving)}, []Envoy{west}, report(west, map[byte]float64{1: 0}))
	idle.Traffic.View.Envoys[0].Services[0].Latency = traffic.Latency{}
	idle.Tables = traffic.Tables(idle.Traffic)
	idle.Table = idle.Tables[0]
	v = idle.View()
	equal(t, "of idle Envoys, the total", v.Tick.Total, [4]float64{0, 0, -1, -1})
	equal(t, "of idle Envoys, a server", v.Tick.Servers[0], [6]float64{0, 0, -1, 1, 1, 1})
	equal(t, "an idle Envoy", v.Tick.Entries[0], [4]float64{0, 0, -1, -1})

	idle.Traffic.View.Envoys[0].Services[0].Name = "other"
	equal(t, "an Envoy that does not tell of the service", idle.View().Tick.Entries[0], [4]float64{0, 0, -1, -1})
	idle.Traffic.View.Envoys[0].Stale = true
	equal(t, "a stale Envoy", idle.View().Tick.Entries[0], [4]float64{-1, -1, -1, -1})

	// Lists without anything are lists: null would be no list to the page.
	nothing := Input{Now: noon}.View()
	for name, list := range map[string]any{
		"servers": nothing.Snapshot.Servers, "entries": nothing.Snapshot.Entries, "regions": nothing.Snapshot.Regions, "services": nothing.Snapshot.Services,
		"problems": nothing.Snapshot.Problems, "changes": nothing.Snapshot.Changes, "held": nothing.Snapshot.Held, "rates": nothing.History.Rate,
		"figures": nothing.Tick.Servers, "entries' figures": nothing.Tick.Entries, "flows": nothing.Tick.Flows, "shares": nothing.History.Shares,
	} {
		if v := reflect.ValueOf(list); v.IsNil() || v.Len() > 0 {
			t.Errorf("%s: %#v", name, list)
		}
	}
}

func TestTableOf_services_findsOne(t *testing.T) {
	tables := []traffic.Table{{Service: "a"}, {Service: "b"}}
	for asked, want := range map[string]string{"a": "a", "b": "b", "c": "a"} {
		equal(t, asked, TableOf(tables, asked).Service, want)
	}
	equal(t, "of none", TableOf(nil, "x").Service, "x")
}

func TestView_endpoints_areOrdered(t *testing.T) {
	gateway := func(node string) Envoy {
		e := envoy(20, node, "")
		e.Device = "gateway.example.ts.net"
		return e
	}
	plain := Envoy{Device: "100.64.0.9", Node: "by-hand", Address: at(9), Region: "west"}
	nameless := Envoy{Device: "100.64.0.8", Address: at(8), Region: "west"}
	f := known([]topology.Endpoint{
		endpoint(1, "s-10", "west", 1, topology.Serving), endpoint(2, "s-2", "west", 1, topology.Serving),
		endpoint(3, "lost", "", 1, topology.Serving), endpoint(4, "s-2", "east", 1, topology.Serving), endpoint(5, "", "west", 1, topology.Serving),
	}, []Envoy{gateway("a"), gateway("b"), gateway("a"), envoy(10, "e-10", "west"), envoy(11, "e-9", "west"), plain, nameless, envoy(12, "o", "ocean")})
	v := f.View()
	equal(t, "regions", v.Snapshot.Regions, []string{"east", "ocean", "west", ""})
	equal(t, "servers", names(v.Snapshot.Servers, func(s dashboard.Server) string { return s.Region + " " + s.Name }), "east s-2, west d5, west s-2, west s-10,  lost")
	equal(t, "Envoys", names(v.Snapshot.Entries, func(e dashboard.Entry) string { return e.Name }),
		"o, 100.64.0.8, by-hand, e-9, e-10, gateway (a), gateway (b)")
	ids := make(map[string]bool)
	for _, e := range v.Snapshot.Entries {
		ids[e.ID] = true
	}
	equal(t, "different IDs", len(ids), 7)
}

// Envoys that share an address are told apart by their nodes, in what they report too.
func TestView_sharedDevice_eachEnvoyHasItsReport(t *testing.T) {
	one, two, three := envoy(11, "one", "west"), envoy(11, "two", "west"), envoy(11, "three", "west")
	f := known([]topology.Endpoint{endpoint(1, "a", "west", 1, topology.Serving)}, []Envoy{one, two, three},
		report(one, map[byte]float64{1: 5}), report(two, map[byte]float64{1: 7}))
	v := f.View()
	equal(t, "Envoys", names(v.Snapshot.Entries, func(e dashboard.Entry) string { return e.Name }), "one, three, two")
	equal(t, "figures", []float64{v.Tick.Entries[0][0], v.Tick.Entries[1][0], v.Tick.Entries[2][0]}, []float64{5, -1, 7})
	equal(t, "problems", names(v.Snapshot.Problems, func(p dashboard.Problem) string { return p.Name + " " + p.Title }), "three reports nothing")
}

func TestView_envoys_tellTheirSync(t *testing.T) {
	for name, test := range map[string]struct {
		pending  bool
		rejected map[string]string
		sync     dashboard.Sync
		words    string
	}{
		"in sync":             {false, nil, dashboard.InSync, ""},
		"pending":             {true, nil, dashboard.Pending, ""},
		"rejected":            {false, map[string]string{"LDS": "no", "CDS": "never"}, dashboard.Rejected, "CDS: never\nLDS: no"},
		"pending and refused": {true, map[string]string{"CDS": "never"}, dashboard.Rejected, "CDS: never"},
	} {
		e := envoy(1, "e", "west")
		e.Pending, e.Rejected = test.pending, test.rejected
		got := Input{Envoys: []Envoy{e}}.View().Snapshot.Entries[0]
		equal(t, name, got, dashboard.Entry{ID: "100.64.0.1/e", Name: "e", Region: "west", Sync: test.sync, Rejection: test.words, Since: noon.Add(-time.Hour).UnixMilli()})
	}
}

func TestView_idleServer_saysWhy(t *testing.T) {
	for name, test := range map[string]struct {
		state     topology.State
		drainedBy string
		unlisted  bool
		want      string
	}{
		"serving":            {topology.Serving, "", false, ""},
		"drained":            {topology.Drained, "", false, "weight 0"},
		"an operator":        {topology.Drained, "alice", false, "by an operator"},
		"expiring":           {topology.Expiring, "", false, "its key expires soon"},
		"expired":            {topology.Expired, "", false, "its key has expired"},
		"offline":            {topology.Offline, "", false, "off the tailnet"},
		"listed no more":     {topology.Offline, "", true, "not listed"},
		"serving, not there": {topology.Serving, "", true, ""},
	} {
		e := endpoint(1, "a", "west", 1, test.state)
		e.DrainedBy = test.drainedBy
		f := known([]topology.Endpoint{e}, nil)
		if test.unlisted {
			f.Devices = nil
		}
		equal(t, name, f.View().Snapshot.Servers[0].Reason, test.want)
	}
}

func TestView_drainedOrHeldServer_isMarked(t *testing.T) {
	f := pool()
	until := noon.Add(time.Minute)
	f.Held = []guard.Held{
		{Service: "other", Endpoints: []guard.HeldEndpoint{{Device: "d1", Address: "100.64.0.1:8080", Listed: "missing"}}},
		{Service: "server", Reason: "too many", Until: &until, Endpoints: []guard.HeldEndpoint{
			{Device: "d10", Name: "b-10", Address: "100.64.0.2:8081", Listed: "missing"}, {Device: "d2", Name: "b-2", Address: "100.64.0.2:8080", Listed: "offline"}, {Device: "d9"},
		}},
	}
	f.Drains = []drain.Record{
		{Device: "d4", By: "alice", At: noon, Until: until},
		{Device: "otherwise", By: "bob", At: noon, Addresses: []netip.Addr{at(1)}},
	}
	s := f.View().Snapshot
	c, d, a, b := s.Servers[0], s.Servers[1], s.Servers[2], s.Servers[3]
	equal(t, "c", []any{c.Held, c.Drain == nil, c.Reason}, []any{false, true, ""})
	equal(t, "d", *d.Drain, dashboard.Drain{By: "alice", At: noon.UnixMilli(), Until: until.UnixMilli()})
	equal(t, "a, known by its address", *a.Drain, dashboard.Drain{By: "bob", At: noon.UnixMilli()})
	equal(t, "a is held in another service", a.Held, false)
	equal(t, "b", []any{b.Held, b.Reason, b.Drain == nil}, []any{true, "the list says offline", true})
	equal(t, "tags", b.Tags, []string{"tag:weight-1"})
	equal(t, "what is held", s.Held, []dashboard.Held{
		{Service: "other", Names: []string{"d1"}},
		{Service: "server", Reason: "too many", Names: []string{"b-2", "b-10", "d9"}, Until: until.UnixMilli()},
	})
}

func TestView_history_isByRegion(t *testing.T) {
	f := pool()
	f.History = traffic.History{Start: noon, Step: 5 * time.Second, Crossing: make([]float64, 3), Latency: make([]traffic.Latency, 3)}
	f.History.Latency[0].Observe([]float64{10, 20}, []uint64{0, 100, 0})
	for n, requests := range map[byte][]float64{1: {1, 0, 0}, 2: {2, 0, 0}, 3: {3, 0, 2.04}, 9: {0, 0, 1}} {
		f.History.Endpoints = append(f.History.Endpoints, traffic.EndpointHistory{Address: netip.AddrPortFrom(at(n), 8080), Requests: requests})
	}
	equal(t, "history", f.View().History, dashboard.History{
		Start: noon.UnixMilli(), Step: 5000, Regions: []string{"east", "west", ""},
		Shares: [][]int{{500, 500, 0}, {}, {671, 0, 329}}, Rate: []float64{6, 0, 3}, Latency: [][2]float64{{15, 19.9}, {-1, -1}, {-1, -1}},
	})
}
