package traffic

import (
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/tailxds/tailxds/internal/balance"
	"github.com/tailxds/tailxds/internal/topology"
)

// world is a, b in west with 1 and 3, c, d in east with 2 each, and e that is
// drained.
func world() topology.Topology {
	var all []topology.Endpoint
	for i, e := range []topology.Endpoint{{Name: "a", Weight: 1, Region: "west"}, {Name: "b", Weight: 3, Region: "west"}, {Name: "c", Weight: 2, Region: "east"}, {Name: "d", Weight: 2, Region: "east"}, {Name: "e", Region: "east", State: topology.Drained}} {
		if e.State == "" {
			e.State = topology.Serving
		}
		e.Device, e.Address = e.Name, address(i)
		all = append(all, e)
	}
	return topology.Topology{Services: []topology.Service{topology.NewService("server", all)}}
}

func address(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{100, 64, 0, byte(i)}), 8080)
}

// envoy tells of requests to a to e, and who is sick for it.
func envoy(name, region, sick string, requests ...float64) Envoy {
	e := Envoy{Device: name, Region: region, Over: 10 * time.Second, Services: []Service{{Name: "other"}, {Name: "server"}}}
	of := &e.Services[1]
	for i, n := range requests {
		name := string(rune('a' + i))
		of.Endpoints = append(of.Endpoints, Endpoint{Address: address(i), Healthy: !slices.Contains([]rune(sick), rune(name[0])), Requests: n, Errors: n / 10, InFlight: 1})
	}
	var l Latency
	l.Observe([]float64{10}, []uint64{10, 0})
	of.Latency = l
	return e
}

func tableOf(t *testing.T, mode balance.Mode, entries map[string]uint32, envoys ...Envoy) Table {
	t.Helper()
	tables := Tables(Input{
		Topology: world(), Rule: func(string) Rule { return Rule{Mode: mode} }, Entries: entries,
		Connected: map[netip.Addr]bool{address(0).Addr(): true}, View: View{Envoys: envoys},
	})
	if len(tables) != 1 || len(tables[0].Servers) != 5 {
		t.Fatalf("%+v", tables)
	}
	return tables[0]
}

func close(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

func shares(t *testing.T, what string, table Table, of func(Server) float64, want ...float64) {
	t.Helper()
	for _, s := range table.Servers {
		if want := want[s.Name[0]-'a']; !close(of(s), want) {
			t.Errorf("%s of %s: %.4f, want %.4f", what, s.Name, of(s), want)
		}
	}
}

func (t Table) named(name string) (int, Server) {
	i := slices.IndexFunc(t.Servers, func(s Server) bool { return s.Name == name })
	return i, t.Servers[i]
}

func expected(s Server) float64 { return s.Expected }
func observed(s Server) float64 { return s.Observed }

func TestTables_reports_observedBesideExpected(t *testing.T) {
	table := tableOf(t, balance.Exact, nil, envoy("w1", "west", "", 10, 30, 20, 20, 0), envoy("w2", "west", "b", 8, 0, 16, 16, 0), envoy("e1", "east", "bc", 0, 0, 0, 40, 0))
	shares(t, "observed", table, observed, 18/160.0, 30/160.0, 36/160.0, 76/160.0, 0)
	shares(t, "expected", table, expected, // a half by weight, a quarter without b, a quarter without b and c
		0.5/8+0.25/5+0.25/3, 0.5*3/8, 0.5/4+0.25*2/5, 0.5/4+0.25*2/5+0.25*2/3, 0)
	if table.Requests != 160 || !close(table.Errors, 16) || table.InFlight != 15 || !close(table.Crossing, 72/160.0) {
		t.Errorf("%+v", table)
	}
	if !close(table.CrossingExpected, 0.5*0.5+0.25*0.8+0.25/3) {
		t.Errorf("%.4f expected to cross", table.CrossingExpected)
	}
	i, b := table.named("b")
	_, a := table.named("a")
	_, e := table.named("e")
	if b.Healthy != 1 || b.Reporting != 3 || !slices.Equal(b.UnhealthyFor, []string{"w2", "e1"}) || b.Unhealthy() || b.Envoy || !a.Envoy {
		t.Errorf("%+v", b)
	}
	if e.Reporting != 0 || e.Unhealthy() {
		t.Errorf("nobody judges who is drained: %+v", e)
	}
	west := table.Entries[1]
	if west.Region != "west" || west.Envoys != 2 || !close(west.Share, 0.75) || !close(west.To[i], 30) || west.P50 <= 0 || table.P99 <= table.P50 {
		t.Errorf("%+v", west)
	}
}

func TestTables_noRequests_entriesCount(t *testing.T) {
	quiet := []float64{0, 0, 0, 0, 0}
	local := func(entries map[string]uint32, envoys ...Envoy) Table {
		return tableOf(t, balance.Local, entries, envoys...)
	}
	shares(t, "nobody tells", local(nil), expected, 1/8.0, 3/8.0, 1/4.0, 1/4.0, 0)
	shares(t, "by Envoys", local(nil, envoy("w", "west", "", quiet...), envoy("e", "east", "", quiet...)), expected, 1/8.0, 3/8.0, 1/4.0, 1/4.0, 0)
	shares(t, "by entries", local(map[string]uint32{"west": 3, "east": 1}, envoy("w", "west", "", quiet...), envoy("w2", "west", "a", quiet...)), expected,
		3/8.0*0.25, 3/8.0*0.75+3/8.0*0.75, 3/8.0*0.125+1/8.0, 3/8.0*0.125+1/8.0, 0)
	shares(t, "by Envoys, of which two see the same", local(nil, envoy("w", "west", "", quiet...), envoy("w2", "west", "", quiet...), envoy("e", "east", "", quiet...)),
		expected, 2/3.0/4, 2/3.0*3/4, 1/6.0, 1/6.0, 0)
	shares(t, "by entries, where two of three see the same",
		local(map[string]uint32{"west": 3, "east": 1}, envoy("w", "west", "", quiet...), envoy("w2", "west", "", quiet...), envoy("w3", "west", "b", quiet...)), expected,
		0.5/4+0.25/4, 0.5*3/4, 0.25*3/8+0.25/2, 0.25*3/8+0.25/2, 0)
	stale := envoy("w", "west", "abcd", 1, 1, 1, 1, 1)
	stale.Stale = true
	table := local(nil, stale)
	shares(t, "the stale say nothing", table, expected, 1/8.0, 3/8.0, 1/4.0, 1/4.0, 0)
	if table.Servers[0].Reporting != 0 || table.Requests != 0 {
		t.Errorf("%+v", table)
	}
}

func TestTables_allEnvoysFindItUnhealthy_expectsNothing(t *testing.T) {
	table := tableOf(t, balance.Exact, nil, envoy("w", "west", "a", 0, 3, 2, 2, 0), envoy("e", "east", "a", 0, 3, 2, 2, 0))
	_, a := table.named("a")
	if _, b := table.named("b"); !a.Unhealthy() || b.Unhealthy() {
		t.Errorf("%+v", table.Servers)
	}
	shares(t, "expected", table, expected, 0, 3/7.0, 2/7.0, 2/7.0, 0)
}

func TestDeviates_shares_byMoreThanChance(t *testing.T) {
	for _, test := range []struct {
		observed, expected, n float64
		want                  bool
	}{
		{0.5, 0.5, 1e6, false},
		{0.53, 0.5, 1e6, true},
		{0.47, 0.5, 1e6, true},
		{0.519, 0.5, 1e9, false},
		{0.3, 0.5, 100, false},
		{0.02, 0, 1, false},
		{0.5, 0, 0, false},
		{0.27, 0.5, 100, true},
		{0, 0.5, 0, false},
		{0.021, 0, 1, true},
		{0.97, 1, 1, true},
	} {
		if got := deviates(test.observed, test.expected, test.n); got != test.want {
			t.Errorf("%v of %v requests, expected %v: %t", test.observed, test.n, test.expected, got)
		}
	}
}

// The longer it was measured, the less is chance.
func TestTables_moreRequests_leaveLessToChance(t *testing.T) {
	for rate, want := range map[float64]bool{1: false, 100: true} {
		w := envoy("w", "west", "", 0.125*rate, 0.525*rate, 0.175*rate, 0.175*rate, 0)
		w.Services = w.Services[1:]
		table := tableOf(t, balance.Exact, nil, w)
		if _, b := table.named("b"); b.Deviates != want || !close(b.Observed, 0.525) {
			t.Errorf("at %v requests a second for ten seconds: %+v", rate, b)
		}
	}
}

// Two Envoys on a device differ by what they call themselves, and two of one name by
// where they report from.
func TestEnvoy_sharedAddressOrNode_isTold(t *testing.T) {
	at := func(i int, node string) Envoy { return Envoy{Address: address(i).Addr(), Node: node} }
	view := View{Envoys: []Envoy{at(1, "a"), at(1, "b"), at(2, "b")}}
	for i, want := range view.Envoys {
		if got := view.Envoy(want.Address, want.Node); got != &view.Envoys[i] {
			t.Errorf("%s %s: got %+v", want.Address, want.Node, got)
		}
	}
	if got := view.Envoy(address(2).Addr(), "a"); got != nil {
		t.Errorf("nobody reports so, got %+v", got)
	}
}
