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
	NextListAt time.Time
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
	j := decider{input: c, listedIDs: sync.OnceValue(c.List.ids), confirmed: m.ConfirmedByEnvoy, decision: Decision{Memory: m}}
	built, names := make(map[string]topology.Service), make(map[string]bool)
	for _, s := range c.Built.Services {
		built[s.Name], names[s.Name] = s, true
	}
	for name := range m.Services {
		names[name] = true
	}
	j.decision.Topology.Next = c.Built.Next
	j.decision.Memory.Services = make(map[string]Service)
	j.decision.Memory.ConfirmedByEnvoy = make(map[string]time.Time)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		said, exists := built[name]
		said.Name = name
		s, remembered := j.decideService(said, m.Services[name])
		if !remembered.isEmpty() {
			j.decision.Memory.Services[name] = remembered
		}
		// Else its loss was accepted, and it is forgotten.
		if exists || !remembered.isEmpty() {
			j.decision.Topology.Services = append(j.decision.Topology.Services, s)
		}
	}
	return j.decision
}

// ids are the IDs of the devices.
func (l List) ids() map[string]bool {
	all := make(map[string]bool, len(l.Devices))
	for _, d := range l.Devices {
		all[d.ID] = true
	}
	return all
}

func (s Service) isEmpty() bool {
	return len(s.Published)+len(s.LastDescribed)+len(s.RecentlyRemoved)+len(s.Dismissed) == 0
}

type decider struct {
	input     Input
	listedIDs func() map[string]bool // device IDs
	// witnessed is what was remembered of Envoys' words, see [Memory].
	confirmed map[string]time.Time
	decision  Decision
}

// sortByDevice puts endpoints in the order of the list, so that what is held is no
// change, and two control planes that hold different endpoints publish the same.
func sortByDevice(endpoints []topology.Endpoint) {
	slices.SortStableFunc(endpoints, compareDevices)
}

func compareDevices(a, b topology.Endpoint) int { return topology.CompareIDs(a.Device, b.Device) }

// decideService judges one service.
func (j *decider) decideService(built topology.Service, was Service) (topology.Service, Service) {
	b := j.gatherEvidence(built, was)
	accepted := make(map[string]bool)
	if was.accepted {
		for _, id := range was.Held {
			accepted[id] = true
		}
		was.RecentlyRemoved = nil // forgiven
	}
	lost, left := b.splitRemoved(was, accepted)
	loss, served := j.measureLoss(b, was, accepted)
	clock := j.advanceClock(was.Loss, loss)
	clock.Served = served
	of := b.countServed(served, loss, accepted)
	alone := len(b.serving) == 0
	stood := clock.ConfirmedFor >= j.input.HoldFor && j.healthy()
	tooMuch := float64(len(loss)) > j.input.HoldFraction*float64(of)

	var held, gone []topology.Endpoint
	if alone || !j.healthy() || (tooMuch && !stood) {
		held = lost
	} else {
		gone = lost
	}
	dismissed := b.dismissed(slices.Concat(was.Dismissed, slices.Collect(maps.Keys(accepted))))
	if alone {
		held = append(held, left...)
		held = append(held, j.expiringEndpoints(b, held, dismissed)...)
	}
	held = b.withoutTaken(held)
	sortByDevice(held)

	now := Service{Published: slices.Concat(b.serving, held), Loss: clock, Held: deviceIDs(held), Dismissed: dismissed}
	sortByDevice(now.Published)
	now.RecentlyRemoved = recentlyRemoved(slices.Concat(was.RecentlyRemoved, gone), loss, stood && !alone)
	now.LastDescribed = lastDescribed(built, was, now)
	if len(loss) == 0 {
		now.Loss.Served = nil
	}
	j.reportService(built.Name, b, held, serviceFindings{len(loss), of, tooMuch, alone, clock})
	return topology.NewService(built.Name, slices.Concat(now.Published, b.idleBeside(held))), now
}

// evidence is what both witnesses say of one service.
type evidence struct {
	serving      []topology.Endpoint
	idle         []topology.Endpoint
	serves       map[string]bool           // device IDs
	idleState    map[string]topology.State // of idle devices
	addressTaken map[netip.AddrPort]bool   // by those that serve
	missing      map[string]bool           // published, and not in the list
}

// gatherEvidence takes what the list says, and believes a device's own Envoy where the
// list says that the device is gone or offline.
func (j *decider) gatherEvidence(built topology.Service, was Service) evidence {
	h := evidence{
		serves: make(map[string]bool), idleState: make(map[string]topology.State),
		addressTaken: make(map[netip.AddrPort]bool), missing: make(map[string]bool),
	}
	serve := func(e topology.Endpoint) {
		h.serving, h.serves[e.Device], h.addressTaken[e.Address] = append(h.serving, e), true, true
	}
	for _, e := range built.Serving() {
		serve(e)
		j.keepConfirmation(e.Device)
	}
	for _, e := range built.Idle {
		switch {
		case e.State == topology.Offline && !e.DrainRequested() && !h.addressTaken[e.Address] && (j.envoyConfirms(e, "offline",
			"the list says that the device is offline, but its own Envoy %s connected, so it serves on: does it reach the coordination server?") ||
			j.withinReturnGrace(e, was)):
			e.State = topology.Serving
			serve(e)
		default:
			h.idle = append(h.idle, e)
			h.addIdleState(e)
		}
	}
	vouched, described := make(map[string]bool), maps.Clone(h.idleState)
	for id := range j.input.Built.Drains {
		h.idleState[id] = topology.Drained // whatever the list says of it: an operator wants it out
	}
	for _, e := range was.Published {
		drain, drained := j.input.Built.Drains[e.Device]
		switch {
		case h.serves[e.Device]:
		case drained && described[e.Device] == "":
			e.State, e.DrainedBy = topology.Drained, drain.String()
			h.idle = append(h.idle, e)
		case drained || j.listedIDs()[e.Device]:
		case !h.addressTaken[e.Address] && j.envoyConfirms(e, "missing",
			"the list lacks the device, but its own Envoy %s connected, so it serves on: is the list whole?"):
			h.serving, h.addressTaken[e.Address] = append(h.serving, e), true
			vouched[e.Device] = true
		default:
			h.missing[e.Device] = true
		}
	}
	maps.Copy(h.serves, vouched)
	return h
}

// wakeAt has it judged again at a time.
func (j *decider) wakeAt(at time.Time) {
	if next := &j.decision.Topology.Next; next.IsZero() || at.Before(*next) {
		*next = at
	}
}

// addIdleState notes why an endpoint is idle. A device that is offline does not leave
// by a drain, though another of its endpoints is drained.
func (h evidence) addIdleState(e topology.Endpoint) {
	state := e.State
	if e.DrainRequested() {
		state = topology.Drained // whatever else it is
	}
	if h.idleState[e.Device] != topology.Offline {
		h.idleState[e.Device] = state
	}
}

func (j *decider) healthy() bool { return !j.input.List.HealthySince.IsZero() }

// withoutTaken leaves out what can't stay, since another has the address now.
func (h evidence) withoutTaken(held []topology.Endpoint) []topology.Endpoint {
	return slices.DeleteFunc(held, func(e topology.Endpoint) bool { return h.addressTaken[e.Address] })
}

// idleBeside are the idle endpoints but of those that are held.
func (h evidence) idleBeside(held []topology.Endpoint) []topology.Endpoint {
	ids := deviceIDs(held)
	return slices.DeleteFunc(slices.Clone(h.idle), func(e topology.Endpoint) bool {
		_, stays := slices.BinarySearch(ids, e.Device)
		return stays
	})
}

// deviceIDs are the IDs of the endpoints' devices, sorted and once each.
func deviceIDs(endpoints []topology.Endpoint) []string {
	var ids []string
	for _, e := range endpoints {
		ids = append(ids, e.Device)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// lastDescribed is what devices said last of a service. Who is published, or went of
// late, and says nothing now, is remembered.
func lastDescribed(built topology.Service, was, now Service) []topology.Endpoint {
	all := slices.Concat(built.Serving(), built.Idle)
	spoke := make(map[string]bool)
	for _, e := range all {
		spoke[e.Device] = true
	}
	counts := make(map[string]bool)
	for _, e := range slices.Concat(now.Published, now.RecentlyRemoved) {
		counts[e.Device] = true
	}
	for _, e := range was.LastDescribed {
		if !spoke[e.Device] && counts[e.Device] {
			all = append(all, e)
		}
	}
	return all
}
