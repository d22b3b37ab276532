package guard

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/tailxds/tailxds/internal/topology"
)

// Input is what there is to judge.
type Input struct {
	// Now is the time.
	Now time.Time
	// List is the list that Built was made of.
	List List
	// Built is what the devices say, by [topology.Build].
	Built topology.Topology
	// Connected are the addresses of the devices whose own Envoy has a stream
	// to the control plane: the second witness of who is there.
	Connected map[netip.Addr]bool
	// StreamsSince is since when Envoys can connect. They need some time to come
	// again after the control plane was away.
	StreamsSince time.Time
	// Grace is for how long the word of an Envoy counts after its stream broke.
	Grace time.Duration
	// HoldFraction is the share of a service above which a loss is held, from 0
	// to 1; HoldFor is how long such a loss must stand.
	HoldFraction float64
	HoldFor      time.Duration
}

// Decision is what may be published, and what is held.
type Decision struct {
	// Topology is what to publish. Its Next is when to judge again.
	Topology topology.Topology
	// Held is what is published against the list, by service.
	Held []Held
	// Degraded are the services that nobody serves.
	Degraded []Degraded
	// Problems are where the witnesses disagree.
	Problems []topology.Problem
	// ListAt is when a further list can let something through; zero is never.
	ListAt time.Time
	// Memory is what the next judgement needs.
	Memory Memory
}

// Decide decides what of the newly built topology may be published. The rules,
// a service at a time:
//
//   - A device whose own Envoy is connected is neither gone nor offline. Nor is
//     it while the stream on whose word it served may yet come again.
//   - A device that served before an outage of the source has time to find the
//     coordination server again.
//   - Additions and changes never wait.
//   - A drain (weight 0, a key that ends) acts at once.
//   - Another removal acts at once while no more than HoldFraction of the
//     endpoints is lost; beyond that it is held until lists have confirmed the
//     same loss for HoldFor. While the source or the link is not well, it waits.
//   - A loss is measured against the devices that served when it began. Judging
//     again without a new fact changes nothing.
//   - Nothing empties a service but an [Memory.Accept] or another endpoint that
//     serves. A new service of which all keys expire soon is served by them.
//   - What is held stays as it was published last.
func Decide(m Memory, c Input) Decision {
	j := judge{c: c, listed: sync.OnceValue(c.List.ids), witnessed: m.Witnessed, v: Decision{Memory: m}}
	built, names := make(map[string]topology.Service), make(map[string]bool)
	for _, s := range c.Built.Services {
		built[s.Name], names[s.Name] = s, true
	}
	for name := range m.Services {
		names[name] = true
	}
	j.v.Topology.Next = c.Built.Next
	j.v.Memory.Services = make(map[string]Service)
	j.v.Memory.Witnessed = make(map[string]time.Time)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		said, exists := built[name]
		said.Name = name
		s, remembered := j.service(said, m.Services[name])
		if !remembered.empty() {
			j.v.Memory.Services[name] = remembered
		}
		// Else its loss was accepted, and it is forgotten.
		if exists || !remembered.empty() {
			j.v.Topology.Services = append(j.v.Topology.Services, s)
		}
	}
	return j.v
}

// ids are the IDs of the devices.
func (l List) ids() map[string]bool {
	all := make(map[string]bool, len(l.Devices))
	for _, d := range l.Devices {
		all[d.ID] = true
	}
	return all
}

func (s Service) empty() bool { return len(s.Published)+len(s.Said)+len(s.Gone)+len(s.Dismissed) == 0 }

type judge struct {
	c      Input
	listed func() map[string]bool // device IDs
	// witnessed is what was remembered of Envoys' words, see [Memory].
	witnessed map[string]time.Time
	v         Decision
}

// byDevice puts endpoints in the order of the list, so that what is held is no
// change, and two control planes that hold different endpoints publish the same.
func byDevice(endpoints []topology.Endpoint) {
	slices.SortStableFunc(endpoints, compareDevices)
}

func compareDevices(a, b topology.Endpoint) int { return topology.CompareIDs(a.Device, b.Device) }

// service judges one service.
func (j *judge) service(built topology.Service, was Service) (topology.Service, Service) {
	b := j.hear(built, was)
	accepted := make(map[string]bool)
	if was.accepted {
		for _, id := range was.Held {
			accepted[id] = true
		}
		was.Gone = nil // forgiven
	}
	lost, left := b.split(was, accepted)
	loss, served := j.count(b, was, accepted)
	clock := j.clock(was.Loss, loss)
	clock.Served = served
	of := b.present(served, loss, accepted)
	alone := len(b.serving) == 0
	stood := clock.Stood >= j.c.HoldFor && j.healthy()
	tooMuch := float64(len(loss)) > j.c.HoldFraction*float64(of)

	var held, gone []topology.Endpoint
	if alone || !j.healthy() || (tooMuch && !stood) {
		held = lost
	} else {
		gone = lost
	}
	dismissed := b.dismissed(slices.Concat(was.Dismissed, slices.Collect(maps.Keys(accepted))))
	if alone {
		held = append(held, left...)
		held = append(held, j.expiring(b, held, dismissed)...)
	}
	held = b.without(held)
	byDevice(held)

	now := Service{Published: slices.Concat(b.serving, held), Loss: clock, Held: devices(held), Dismissed: dismissed}
	byDevice(now.Published)
	now.Gone = stillGone(slices.Concat(was.Gone, gone), loss, stood && !alone)
	now.Said = said(built, was, now)
	if len(loss) == 0 {
		now.Loss.Served = nil
	}
	j.tell(built.Name, b, held, findings{len(loss), of, tooMuch, alone, clock})
	return topology.NewService(built.Name, slices.Concat(now.Published, b.idleBeside(held))), now
}

// hearing is what both witnesses say of one service.
type hearing struct {
	serving []topology.Endpoint
	idle    []topology.Endpoint
	serves  map[string]bool           // device IDs
	why     map[string]topology.State // of idle devices
	taken   map[netip.AddrPort]bool   // by those that serve
	gone    map[string]bool           // published, and not in the list
}

// hear takes what the list says, and believes a device's own Envoy where the
// list says that the device is gone or offline.
func (j *judge) hear(built topology.Service, was Service) hearing {
	h := hearing{
		serves: make(map[string]bool), why: make(map[string]topology.State),
		taken: make(map[netip.AddrPort]bool), gone: make(map[string]bool),
	}
	serve := func(e topology.Endpoint) {
		h.serving, h.serves[e.Device], h.taken[e.Address] = append(h.serving, e), true, true
	}
	for _, e := range built.Serving() {
		serve(e)
		j.remember(e.Device)
	}
	for _, e := range built.Idle {
		switch {
		case e.State == topology.Offline && !e.DrainRequested() && !h.taken[e.Address] && (j.vouches(e, "offline",
			"the list says that the device is offline, but its own Envoy %s connected, so it serves on: does it reach the coordination server?") ||
			j.returns(e, was)):
			e.State = topology.Serving
			serve(e)
		default:
			h.idle = append(h.idle, e)
			h.leaves(e)
		}
	}
	vouched, described := make(map[string]bool), maps.Clone(h.why)
	for id := range j.c.Built.Drains {
		h.why[id] = topology.Drained // whatever the list says of it: an operator wants it out
	}
	for _, e := range was.Published {
		drain, drained := j.c.Built.Drains[e.Device]
		switch {
		case h.serves[e.Device]:
		case drained && described[e.Device] == "":
			e.State, e.DrainedBy = topology.Drained, drain.String()
			h.idle = append(h.idle, e)
		case drained || j.listed()[e.Device]:
		case !h.taken[e.Address] && j.vouches(e, "missing",
			"the list lacks the device, but its own Envoy %s connected, so it serves on: is the list whole?"):
			h.serving, h.taken[e.Address] = append(h.serving, e), true
			vouched[e.Device] = true
		default:
			h.gone[e.Device] = true
		}
	}
	maps.Copy(h.serves, vouched)
	return h
}

// wake has it judged again at a time.
func (j *judge) wake(at time.Time) {
	if next := &j.v.Topology.Next; next.IsZero() || at.Before(*next) {
		*next = at
	}
}

// leaves notes why an endpoint is idle. A device that is offline does not leave
// by a drain, though another of its endpoints is drained.
func (h hearing) leaves(e topology.Endpoint) {
	state := e.State
	if e.DrainRequested() {
		state = topology.Drained // whatever else it is
	}
	if h.why[e.Device] != topology.Offline {
		h.why[e.Device] = state
	}
}

func (j *judge) healthy() bool { return !j.c.List.HealthySince.IsZero() }

// without leaves out what can't stay, since another has the address now.
func (h hearing) without(held []topology.Endpoint) []topology.Endpoint {
	return slices.DeleteFunc(held, func(e topology.Endpoint) bool { return h.taken[e.Address] })
}

// idleBeside are the idle endpoints but of those that are held.
func (h hearing) idleBeside(held []topology.Endpoint) []topology.Endpoint {
	ids := devices(held)
	return slices.DeleteFunc(slices.Clone(h.idle), func(e topology.Endpoint) bool {
		_, stays := slices.BinarySearch(ids, e.Device)
		return stays
	})
}

// devices are the IDs of the endpoints' devices, sorted and once each.
func devices(endpoints []topology.Endpoint) []string {
	var ids []string
	for _, e := range endpoints {
		ids = append(ids, e.Device)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// said is what devices said last of a service. Who is published, or went of
// late, and says nothing now, is remembered.
func said(built topology.Service, was, now Service) []topology.Endpoint {
	all := slices.Concat(built.Serving(), built.Idle)
	spoke := make(map[string]bool)
	for _, e := range all {
		spoke[e.Device] = true
	}
	counts := make(map[string]bool)
	for _, e := range slices.Concat(now.Published, now.Gone) {
		counts[e.Device] = true
	}
	for _, e := range was.Said {
		if !spoke[e.Device] && counts[e.Device] {
			all = append(all, e)
		}
	}
	return all
}
