package events

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tailxds/tailxds/internal/guard"
	"github.com/tailxds/tailxds/internal/topology"
)

// Snapshot is the state whose changes are events.
type Snapshot struct {
	Topology topology.Topology
	Held     []guard.Held
	Degraded []guard.Degraded
	Problems []topology.Problem
	Envoys   []Envoy
	// Policies are the services' policies, as values by key; "" is for all services
	// without one of their own. Ingress are the values of all Envoys. PolicyError says
	// why the policy file is not in force.
	Policies    map[string]map[string]string
	Ingress     map[string]string
	PolicyError string
}

// Envoy is a connected Envoy.
type Envoy struct {
	Device  string
	Node    string
	Address netip.AddrPort
	Since   time.Time
	// Rejected are its reasons for rejecting resources, by type.
	Rejected map[string]string
}

// Diff returns the events between two snapshots in reading order: first causes, then
// their effects.
func Diff(was, is Snapshot) []Event {
	return slices.Concat(
		diffPolicies(was, is),
		diffServices(was.Topology, is.Topology),
		diffEndpoints(was.Topology, is.Topology),
		diffHeld(was.Held, is.Held),
		diffDegraded(was.Degraded, is.Degraded),
		diffProblems(was.Problems, is.Problems),
		diffEnvoys(was.Envoys, is.Envoys),
	)
}

// diffServices returns which services were added and removed.
func diffServices(was, is topology.Topology) []Event {
	var all []Event
	before, after := servicesByName(was), servicesByName(is)
	for _, name := range slices.Sorted(maps.Keys(union(before, after))) {
		_, w := before[name]
		_, i := after[name]
		switch {
		case !w:
			all = append(all, Event{Kind: Service, Service: name, To: name, Text: "the service " + name + " is known now"})
		case !i:
			all = append(all, Event{Kind: Service, Service: name, From: name, Text: "the service " + name + " is gone"})
		}
	}
	return all
}

func servicesByName(t topology.Topology) map[string]topology.Service {
	all := make(map[string]topology.Service)
	for _, s := range t.Services {
		all[s.Name] = s
	}
	return all
}

// endpointKey identifies an endpoint. A list can have a device twice with one
// address while it is missing.
type endpointKey struct {
	service, device string
	address         netip.AddrPort
	nth             int
}

// endpointsByKey returns all endpoints but those of services that are equal in
// another topology. Who drained them is an event of its own.
func endpointsByKey(t topology.Topology, but map[string]topology.Service) map[endpointKey]topology.Endpoint {
	all := make(map[endpointKey]topology.Endpoint)
	for _, s := range t.Services {
		if o, ok := but[s.Name]; ok && s.SameServing(o) && slices.Equal(s.Idle, o.Idle) {
			continue
		}
		for _, e := range slices.Concat(s.Serving(), s.Idle) {
			at := endpointKey{s.Name, e.Device, e.Address, 0}
			for _, taken := all[at]; taken; _, taken = all[at] {
				at.nth++
			}
			e.DrainedBy = ""
			all[at] = e
		}
	}
	return all
}

func (p endpointKey) compare(o endpointKey) int {
	if c := strings.Compare(p.service, o.service); c != 0 {
		return c
	}
	if c := topology.CompareIDs(p.device, o.device); c != 0 {
		return c
	}
	if c := p.address.Compare(o.address); c != 0 {
		return c
	}
	return p.nth - o.nth
}

// diffEndpoints returns the changes of each endpoint.
func diffEndpoints(was, is topology.Topology) []Event {
	var all []Event
	before, after := endpointsByKey(was, servicesByName(is)), endpointsByKey(is, servicesByName(was))
	for _, at := range slices.SortedFunc(maps.Keys(union(before, after)), endpointKey.compare) {
		w, there := before[at]
		i, stays := after[at]
		change := func(kind Kind, key, from, to, text string) {
			e := w
			if !there {
				e = i
			}
			all = append(all, Event{
				Kind: kind, Service: at.service, Device: at.device, Name: e.Name, From: from, To: to, Text: text,
				Key: key, endpoint: e, nth: at.nth,
			})
		}
		switch {
		case !there:
			change(Added, "", "", string(i.State), fmt.Sprintf("%s came to %s: %s, weight %d%s", i.Name, at.service, i.State, i.Weight, inRegion(i.Region)))
		case !stays:
			change(Removed, "", string(w.State), "", fmt.Sprintf("%s is gone from %s; it was %s with weight %d%s", w.Name, at.service, w.State, w.Weight, inRegion(w.Region)))
		default:
			for _, v := range attributes() {
				if from, to := v.of(w), v.of(i); from != to {
					change(v.kind, v.key, from, to, fmt.Sprintf("%s in %s: %s %s → %s", i.Name, at.service, v.key, orNone(from), orNone(to)))
				}
			}
		}
	}
	return all
}

// attribute is a value of an endpoint, and how to read and write it as text.
type attribute struct {
	key  string
	kind Kind
	of   func(topology.Endpoint) string
	set  func(*topology.Endpoint, string)
}

// attributes returns all values of an endpoint besides its key.
func attributes() []attribute {
	number := func(s string) uint32 { n, _ := strconv.ParseUint(s, 10, 32); return uint32(n) }
	return []attribute{
		{"weight", Weight, func(e topology.Endpoint) string { return fmt.Sprint(e.Weight) }, func(e *topology.Endpoint, s string) { e.Weight = number(s) }},
		{"region", Moved, func(e topology.Endpoint) string { return e.Region }, func(e *topology.Endpoint, s string) { e.Region = s }},
		{"zone", Moved, func(e topology.Endpoint) string { return e.Zone }, func(e *topology.Endpoint, s string) { e.Zone = s }},
		{"priority", Moved, func(e topology.Endpoint) string { return fmt.Sprint(e.Priority) }, func(e *topology.Endpoint, s string) { e.Priority = number(s) }},
		{"name", Moved, func(e topology.Endpoint) string { return e.Name }, func(e *topology.Endpoint, s string) { e.Name = s }},
		{"state", State, func(e topology.Endpoint) string { return string(e.State) }, func(e *topology.Endpoint, s string) { e.State = topology.State(s) }},
	}
}

func inRegion(region string) string {
	if region == "" {
		return ""
	}
	return " in " + region
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// diffHeld returns which endpoints the guard began and ceased to hold.
func diffHeld(was, is []guard.Held) []Event {
	type who struct{ service, device string }
	gather := func(all []guard.Held) map[who]guard.HeldEndpoint {
		by := make(map[who]guard.HeldEndpoint)
		for _, h := range all {
			for _, e := range h.Endpoints {
				by[who{h.Service, e.Device}] = e
			}
		}
		return by
	}
	before, after := gather(was), gather(is)
	var all []Event
	order := func(a, b who) int {
		if c := strings.Compare(a.service, b.service); c != 0 {
			return c
		}
		return topology.CompareIDs(a.device, b.device)
	}
	for _, at := range slices.SortedFunc(maps.Keys(union(before, after)), order) {
		w, there := before[at]
		i, stays := after[at]
		switch {
		case !there:
			all = append(all, Event{
				Kind: Held, Service: at.service, Device: at.device, Name: i.Name, To: i.Listed,
				Text: fmt.Sprintf("%s is held in %s, though it is %s", i.Name, at.service, i.Listed),
			})
		case !stays:
			all = append(all, Event{
				Kind: Released, Service: at.service, Device: at.device, Name: w.Name, From: w.Listed,
				Text: fmt.Sprintf("%s is held in %s no longer", w.Name, at.service),
			})
		}
	}
	return all
}

func diffDegraded(was, is []guard.Degraded) []Event {
	gather := func(all []guard.Degraded) map[string]bool {
		by := make(map[string]bool)
		for _, d := range all {
			by[d.Service] = true
		}
		return by
	}
	before, after := gather(was), gather(is)
	var all []Event
	for _, name := range slices.Sorted(maps.Keys(union(before, after))) {
		switch {
		case !before[name]:
			all = append(all, Event{Kind: Service, Service: name, Text: "nobody serves " + name})
		case !after[name]:
			all = append(all, Event{Kind: Service, Service: name, Text: name + " is served again"})
		}
	}
	return all
}

func diffProblems(was, is []topology.Problem) []Event {
	var all []Event
	tell := func(kind Kind, of, not []topology.Problem, verb string) {
		known := make(map[topology.Problem]bool)
		for _, p := range not {
			known[p] = true
		}
		for _, p := range of {
			if known[p] {
				continue
			}
			known[p] = true // told once
			text := fmt.Sprintf("%s%s: %s", verb, strings.TrimSpace(p.Name+" "+p.Subject), p.Reason)
			all = append(all, Event{Kind: kind, Device: p.Device, Name: p.Name, To: p.Subject, Text: text})
		}
	}
	tell(Problem, is, was, "")
	tell(Fixed, was, is, "mended: ")
	return all
}

// diffEnvoys returns which Envoys connected and disconnected, many at once as one
// event, and what they rejected.
func diffEnvoys(was, is []Envoy) []Event {
	type who struct {
		device, node string
		address      netip.AddrPort
		since        time.Time
	}
	gather := func(all []Envoy) map[who]Envoy {
		by := make(map[who]Envoy)
		for _, e := range all {
			by[who{e.Device, e.Node, e.Address, e.Since}] = e
		}
		return by
	}
	// An Envoy sends its node after it has connected: that is no other Envoy.
	before, after := gather(withoutNodes(was)), gather(withoutNodes(is))
	var came, went []string
	var all []Event
	// A device with many streams has one event of a kind and type, or it alone would
	// fill the log.
	type about struct {
		kind        Kind
		device, typ string
	}
	told := make(map[about]bool)
	first := func(kind Kind, device, typ string) bool {
		at := about{kind, device, typ}
		defer func() { told[at] = true }()
		return !told[at]
	}
	for at, e := range after {
		w, there := before[at]
		if !there {
			came = append(came, e.Device)
		}
		for kind, words := range e.Rejected {
			if w.Rejected[kind] != words && first(Rejected, e.Device, kind) {
				all = append(all, Event{Kind: Rejected, Name: e.Device, To: kind, Text: fmt.Sprintf("%s rejected %s: %s", e.Device, kind, words)})
			}
		}
		for kind := range w.Rejected {
			if e.Rejected[kind] == "" && first(Recovered, e.Device, kind) {
				all = append(all, Event{Kind: Recovered, Name: e.Device, From: kind, Text: fmt.Sprintf("%s took %s again", e.Device, kind)})
			}
		}
	}
	for at, e := range before {
		if _, stays := after[at]; !stays {
			went = append(went, e.Device)
		}
	}
	slices.SortFunc(all, func(a, b Event) int { return strings.Compare(a.Text, b.Text) })
	return slices.Concat(connectionEvents(EnvoyDisconnected, went, "left"), connectionEvents(EnvoyConnected, came, "connected"), all)
}

func withoutNodes(all []Envoy) []Envoy {
	all = slices.Clone(all)
	for i := range all {
		all[i].Node = ""
	}
	return all
}

func connectionEvents(kind Kind, devices []string, verb string) []Event {
	switch len(devices) {
	case 0:
		return nil
	case 1:
		return []Event{{Kind: kind, Name: devices[0], Text: "the Envoy of " + devices[0] + " " + verb}}
	default:
		slices.Sort(devices)
		return []Event{{Kind: kind, To: strconv.Itoa(len(devices)), Text: fmt.Sprintf("%d Envoys %s: %s", len(devices), verb, joinNames(devices))}}
	}
}

// joinNames names a few of many.
func joinNames(names []string) string {
	const most = 5
	switch n := len(names); {
	case n == 1:
		return names[0]
	case n <= most:
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1]
	default:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), n-most)
	}
}

func union[K comparable, A, B any](a map[K]A, b map[K]B) map[K]bool {
	all := make(map[K]bool)
	for k := range a {
		all[k] = true
	}
	for k := range b {
		all[k] = true
	}
	return all
}
