package events

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tailxds/tailxds/internal/guard"
	"github.com/tailxds/tailxds/internal/topology"
)

// apply does to a topology what changes tell.
func apply(services map[string]bool, endpoints map[endpointKey]topology.Endpoint, changes []Event) {
	for _, c := range changes {
		at := endpointKey{c.Service, c.Device, c.endpoint.Address, c.nth}
		switch {
		case c.Kind == Service && c.From == "" && c.To != "":
			services[c.Service] = true
		case c.Kind == Service && c.From != "":
			delete(services, c.Service)
		case c.Kind == Added:
			endpoints[at] = c.endpoint
		case c.Kind == Removed:
			delete(endpoints, at)
		case c.Key != "":
			e := endpoints[at]
			for _, v := range attributes() {
				if v.key == c.Key {
					v.set(&e, c.To)
				}
			}
			endpoints[at] = e
		}
	}
}

func topologies() *rapid.Generator[topology.Topology] {
	endpoint := rapid.Custom(func(t *rapid.T) topology.Endpoint {
		device := rapid.IntRange(1, 4).Draw(t, "device")
		return topology.Endpoint{
			Device: fmt.Sprint(device), Name: rapid.SampledFrom([]string{"x", "y"}).Draw(t, "name"),
			Address:  netip.AddrPortFrom(netip.AddrFrom4([4]byte{100, 64, 0, byte(device)}), rapid.SampledFrom([]uint16{80, 81}).Draw(t, "port")),
			Weight:   rapid.Uint32Range(0, 2).Draw(t, "weight"),
			Priority: rapid.Uint32Range(0, 2).Draw(t, "priority"),
			Region:   rapid.SampledFrom([]string{"", "west", "east"}).Draw(t, "region"),
			Zone:     rapid.SampledFrom([]string{"", "1"}).Draw(t, "zone"),
			State:    rapid.SampledFrom([]topology.State{topology.Serving, topology.Offline, topology.Drained}).Draw(t, "state"),
		}
	})
	return rapid.Custom(func(t *rapid.T) topology.Topology {
		var all topology.Topology
		for _, name := range []string{"a", "b", "c"} {
			if rapid.Bool().Draw(t, name) {
				all.Services = append(all.Services, topology.NewService(name, rapid.SliceOfN(endpoint, 0, 5).Draw(t, "endpoints")))
			}
		}
		return all
	})
}

func TestDiff_anyTopologies_appliedGivesTheNewOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		was, is := topologies().Draw(t, "was"), topologies().Draw(t, "is")
		changes := Diff(Snapshot{Topology: was}, Snapshot{Topology: is})
		services, endpoints := union(servicesByName(was), map[string]bool{}), endpointsByKey(was, nil)
		apply(services, endpoints, changes)
		if want := union(servicesByName(is), map[string]bool{}); !maps.Equal(services, want) {
			t.Errorf("services %v, want %v", services, want)
		}
		if want := endpointsByKey(is, nil); !maps.Equal(endpoints, want) {
			t.Errorf("got %v, want %v", endpoints, want)
		}
		for _, c := range changes {
			if c.Text == "" || c.From == c.To && c.Key != "" {
				t.Errorf("says nothing: %+v", c)
			}
		}
		if same := Diff(Snapshot{Topology: is}, Snapshot{Topology: is}); len(same) > 0 {
			t.Errorf("nothing changed, and it tells %v", same)
		}
	})
}

// Endpoints are told of by service, device and address, the numbers of devices in
// their order, and those that a list has twice as it has them.
func TestDiff_endpoints_areInOrder(t *testing.T) {
	at := func(device, name, address string) topology.Endpoint {
		return topology.Endpoint{Device: device, Name: name, Address: netip.MustParseAddrPort(address), Weight: 1, State: topology.Serving}
	}
	is := topology.Topology{Services: []topology.Service{
		topology.NewService("z", []topology.Endpoint{at("1", "last", "100.64.0.1:80")}),
		topology.NewService("a", []topology.Endpoint{
			at("10", "g", "100.64.0.1:80"), at("9", "d", "100.64.0.9:82"), at("9", "e", "100.64.0.9:82"), at("9", "f", "100.64.0.9:82"),
			at("9", "c", "100.64.0.9:81"), at("2", "b", "100.64.0.20:80"), at("2", "a", "100.64.0.3:80"),
		}),
	}}
	for range 20 { // maps have no order
		var got []string
		for _, c := range Diff(Snapshot{}, Snapshot{Topology: is}) {
			if c.Kind == Added {
				got = append(got, c.Name)
			}
		}
		if want := []string{"a", "b", "c", "d", "e", "f", "g", "last"}; !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
}

func TestDiff_changes_readWell(t *testing.T) {
	address := netip.MustParseAddrPort("100.64.0.1:8080")
	service := func(weight uint32, state topology.State) topology.Topology {
		return topology.Topology{Services: []topology.Service{topology.NewService("server", []topology.Endpoint{
			{Device: "1", Name: "west-1", Address: address, Weight: weight, Region: "west", State: state},
		})}}
	}
	since := time.Unix(1, 0)
	envoy := func(name string, rejected map[string]string) Envoy {
		return Envoy{Device: name, Node: name, Address: address, Since: since, Rejected: rejected}
	}
	held := []guard.Held{{Service: "server", Endpoints: []guard.HeldEndpoint{{Device: "1", Name: "west-1", Listed: "offline"}}}}
	bad := topology.Problem{Device: "1", Name: "west-1", Subject: "tag:weight-x", Reason: "ignored"}
	for name, test := range map[string]struct {
		was, is Snapshot
		want    []string
	}{
		"nothing": {},
		"a weight and a state": {
			Snapshot{Topology: service(1, topology.Serving)},
			Snapshot{Topology: service(0, topology.Drained)},
			[]string{"weight west-1 in server: weight 1 → 0", "state west-1 in server: state serving → drained"},
		},
		"it came": {Snapshot{}, Snapshot{Topology: service(2, topology.Serving)}, []string{"service the service server is known now", "added west-1 came to server: serving, weight 2 in west"}},
		"it went": {
			Snapshot{Topology: service(2, topology.Serving)},
			Snapshot{Topology: topology.Topology{Services: []topology.Service{{Name: "server"}}}},
			[]string{"removed west-1 is gone from server; it was serving with weight 2 in west"},
		},
		"held":              {Snapshot{}, Snapshot{Held: held}, []string{"held west-1 is held in server, though it is offline"}},
		"held no longer":    {Snapshot{Held: held}, Snapshot{}, []string{"released west-1 is held in server no longer"}},
		"nobody serves":     {Snapshot{}, Snapshot{Degraded: []guard.Degraded{{Service: "server", Known: 2}}}, []string{"service nobody serves server"}},
		"somebody serves":   {Snapshot{Degraded: []guard.Degraded{{Service: "server", Known: 2}}}, Snapshot{}, []string{"service server is served again"}},
		"a problem":         {Snapshot{}, Snapshot{Problems: []topology.Problem{bad, bad}}, []string{"problem west-1 tag:weight-x: ignored"}},
		"a problem's end":   {Snapshot{Problems: []topology.Problem{bad}}, Snapshot{}, []string{"mended mended: west-1 tag:weight-x: ignored"}},
		"an Envoy":          {Snapshot{}, Snapshot{Envoys: []Envoy{envoy("a", nil)}}, []string{"came the Envoy of a connected"}},
		"an Envoy's name":   {Snapshot{Envoys: []Envoy{{Device: "a", Address: address, Since: since}}}, Snapshot{Envoys: []Envoy{envoy("a", nil)}}, nil},
		"some Envoys":       {Snapshot{Envoys: []Envoy{envoy("a", nil), envoy("b", nil)}}, Snapshot{}, []string{"went 2 Envoys left: a and b"}},
		"five Envoys":       {Snapshot{}, Snapshot{Envoys: []Envoy{envoy("e", nil), envoy("a", nil), envoy("b", nil), envoy("c", nil), envoy("d", nil)}}, []string{"came 5 Envoys connected: a, b, c, d and e"}},
		"many Envoys":       {Snapshot{}, Snapshot{Envoys: []Envoy{envoy("g", nil), envoy("a", nil), envoy("b", nil), envoy("c", nil), envoy("d", nil), envoy("e", nil), envoy("f", nil)}}, []string{"came 7 Envoys connected: a, b, c, d, e and 2 more"}},
		"a rejection":       {Snapshot{Envoys: []Envoy{envoy("a", nil)}}, Snapshot{Envoys: []Envoy{envoy("a", map[string]string{"cds": "no"})}}, []string{"rejected a rejected cds: no"}},
		"a rejection's end": {Snapshot{Envoys: []Envoy{envoy("a", map[string]string{"cds": "no"})}}, Snapshot{Envoys: []Envoy{envoy("a", nil)}}, []string{"recovered a took cds again"}},
		"a policy": {
			Snapshot{Policies: map[string]map[string]string{"": {"timeout": "15s", "retries": "3"}, "x": {"timeout": "15s", "retries": "3"}}},
			Snapshot{Policies: map[string]map[string]string{"": {"timeout": "30s", "retries": "3"}, "x": {"timeout": "30s", "retries": "3"}, "y": {"timeout": "15s", "retries": "1"}}},
			[]string{"policy policy of y: retries 3 → 1", "policy policy of the defaults and x: timeout 15s → 30s"},
		},
		"the ingress": {
			Snapshot{Ingress: map[string]string{"port": "10000", "allow": "tailnet"}},
			Snapshot{Ingress: map[string]string{"port": "80", "allow": "tailnet"}},
			[]string{"policy policy of the ingress: port 10000 → 80"},
		},
		"a policy's end": {
			Snapshot{Policies: map[string]map[string]string{"": {"hosts": ""}, "x": {"hosts": "x.io"}}},
			Snapshot{Policies: map[string]map[string]string{"": {"hosts": ""}}},
			[]string{"policy policy of x: hosts x.io → none"},
		},
		"a bad policy":       {Snapshot{}, Snapshot{PolicyError: "line 3"}, []string{"problem the policy file is bad, the last good policy stays: line 3"}},
		"a good policy then": {Snapshot{PolicyError: "line 3"}, Snapshot{}, []string{"mended the policy file is good again"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, c := range Diff(test.was, test.is) {
				got = append(got, string(c.Kind)+" "+c.Text)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			}
		})
	}
}

// Who is held is told service by service, the numbers of devices in their order.
func TestDiff_heldEndpoints_areInOrder(t *testing.T) {
	held := func(service string, devices ...string) guard.Held {
		h := guard.Held{Service: service}
		for _, d := range devices {
			h.Endpoints = append(h.Endpoints, guard.HeldEndpoint{Device: d, Name: service + d, Listed: "offline"})
		}
		return h
	}
	all := []guard.Held{held("b", "1", "7"), held("a", "10", "9", "2"), held("c", "1")}
	for range 20 { // maps have no order
		for _, changes := range [][]Event{Diff(Snapshot{}, Snapshot{Held: all}), Diff(Snapshot{Held: all}, Snapshot{})} {
			var got []string
			for _, c := range changes {
				got = append(got, c.Name)
			}
			if want := []string{"a2", "a9", "a10", "b1", "b7", "c1"}; !slices.Equal(got, want) {
				t.Fatalf("got %v, want %v", got, want)
			}
		}
	}
}

// An edit of one service's policy is the service's; one of several, or of the
// defaults, is of none.
func TestDiff_policyOfSomeServices_namesThem(t *testing.T) {
	policies := func(timeout string, of ...string) map[string]map[string]string {
		all := map[string]map[string]string{"": {"timeout": "1s"}, "a": {"timeout": "1s"}, "b": {"timeout": "1s"}}
		for _, name := range of {
			all[name] = map[string]string{"timeout": timeout}
		}
		return all
	}
	for name, c := range map[string]struct {
		of   []string
		want string
	}{"one": {[]string{"b"}, "b"}, "two": {[]string{"a", "b"}, ""}, "the defaults": {[]string{""}, ""}, "the defaults and one": {[]string{"", "a"}, ""}} {
		got := Diff(Snapshot{Policies: policies("1s")}, Snapshot{Policies: policies("2s", c.of...)})
		if len(got) != 1 || got[0].Service != c.want || got[0].Key != "timeout" {
			t.Errorf("%s: %+v, want one of %q", name, got, c.want)
		}
	}
}
