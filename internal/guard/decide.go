package guard

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/tailxds/tailxds/internal/topology"
)

// Input is what a decision depends on, beside the [Memory].
type Input struct {
	// Now is the current time.
	Now time.Time
	// List is the device list that Built was made of.
	List List
	// Built is the topology by the devices' own metadata, of [topology.Build].
	Built topology.Topology
	// Connected are the addresses of the devices whose own Envoy has a stream to a
	// control plane: evidence beside the list that the device is there.
	Connected map[netip.Addr]bool
	// StreamsSince is since when Envoys can connect. After a restart of the control
	// plane they need some time to reconnect.
	StreamsSince time.Time
	// Grace is how long an Envoy's evidence counts after its stream broke.
	Grace time.Duration
	// HoldFraction is the share of a service above which a loss is held, from 0 to 1;
	// HoldFor is how long lists must confirm such a loss.
	HoldFraction float64
	HoldFor      time.Duration
}

// Decision is what may be published, and what is held back.
type Decision struct {
	// Topology is what to publish. Its Next is when to decide again.
	Topology topology.Topology
	// Held are the endpoints that are published against the list, by service.
	Held []Held
	// Degraded are the services without a serving endpoint.
	Degraded []Degraded
	// Problems are where the list and an Envoy's evidence contradict each other.
	Problems []topology.Problem
	// NextListAt is when a further list can end a hold; zero is never.
	NextListAt time.Time
	// Memory is the input of the next decision.
	Memory Memory
}

// Decide decides what of the newly built topology may be published, a service at a
// time, by these rules:
//
//   - A device whose own Envoy is connected is neither missing nor offline. Nor is
//     it while the stream that showed it may reconnect.
//   - A device that served before an outage of the source has time to reconnect to
//     the coordination server.
//   - Additions and changes never wait.
//   - A drain (weight 0, a key that ends) acts at once.
//   - Another removal acts at once while no more than HoldFraction of the
//     endpoints is lost. Beyond that it is held until lists have confirmed the same
//     loss for HoldFor. While the source or the link is unhealthy, it is held.
//   - A loss is measured against the devices that served when it began. Deciding
//     again without a new fact changes nothing.
//   - Nothing empties a service but [Memory.Accept] or another endpoint that serves.
//     A new service whose keys all expire soon is served by their devices.
//   - A held endpoint stays as it was last published.
func Decide(m Memory, c Input) Decision {
	dc := decider{input: c, listedIDs: sync.OnceValue(c.List.ids), confirmed: m.ConfirmedByEnvoy, decision: Decision{Memory: m}}
	built, names := make(map[string]topology.Service), make(map[string]bool)
	for _, s := range c.Built.Services {
		built[s.Name], names[s.Name] = s, true
	}
	for name := range m.Services {
		names[name] = true
	}
	dc.decision.Topology.Next = c.Built.Next
	dc.decision.Memory.Services = make(map[string]Service)
	dc.decision.Memory.ConfirmedByEnvoy = make(map[string]time.Time)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		current, exists := built[name]
		current.Name = name
		s, next := dc.decideService(current, m.Services[name])
		if !next.isEmpty() {
			dc.decision.Memory.Services[name] = next
		}
		// Else an operator accepted its loss, and it is forgotten.
		if exists || !next.isEmpty() {
			dc.decision.Topology.Services = append(dc.decision.Topology.Services, s)
		}
	}
	return dc.decision
}

// ids returns the set of the devices' IDs.
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
	// confirmed is when each device was last confirmed by its Envoy, by the last
	// memory.
	confirmed map[string]time.Time
	decision  Decision
}

// sortByDevice sorts endpoints in the order of the list, so that holding an endpoint
// moves nothing, and two control planes that hold different endpoints publish the
// same order.
func sortByDevice(endpoints []topology.Endpoint) {
	slices.SortStableFunc(endpoints, compareDevices)
}

func compareDevices(a, b topology.Endpoint) int { return topology.CompareIDs(a.Device, b.Device) }

// decideService decides about one service.
func (dc *decider) decideService(built topology.Service, was Service) (topology.Service, Service) {
	b := dc.gatherEvidence(built, was)
	accepted := make(map[string]bool)
	if was.accepted {
		for _, id := range was.Held {
			accepted[id] = true
		}
		was.RecentlyRemoved = nil // accepted, too
	}
	lost, left := b.splitRemoved(was, accepted)
	loss, served := dc.measureLoss(b, was, accepted)
	clock := dc.advanceClock(was.Loss, loss)
	clock.Served = served
	of := b.countServed(served, loss, accepted)
	alone := len(b.serving) == 0
	stood := clock.ConfirmedFor >= dc.input.HoldFor && dc.healthy()
	tooMuch := float64(len(loss)) > dc.input.HoldFraction*float64(of)

	var held, gone []topology.Endpoint
	if alone || !dc.healthy() || (tooMuch && !stood) {
		held = lost
	} else {
		gone = lost
	}
	dismissed := b.dismissed(slices.Concat(was.Dismissed, slices.Collect(maps.Keys(accepted))))
	if alone {
		held = append(held, left...)
		held = append(held, dc.expiringEndpoints(b, held, dismissed)...)
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
	dc.reportService(built.Name, b, held, serviceFindings{len(loss), of, tooMuch, alone, clock})
	return topology.NewService(built.Name, slices.Concat(now.Published, b.idleBeside(held))), now
}

// evidence is what the list and Envoys say of one service.
type evidence struct {
	serving      []topology.Endpoint
	idle         []topology.Endpoint
	serves       map[string]bool           // device IDs
	idleState    map[string]topology.State // of idle devices
	addressTaken map[netip.AddrPort]bool   // by those that serve
	missing      map[string]bool           // published, and not in the list
}

// gatherEvidence reads the list, and overrides it where a device's own Envoy shows
// that the device is there although the list calls it missing or offline.
func (dc *decider) gatherEvidence(built topology.Service, was Service) evidence {
	h := evidence{
		serves: make(map[string]bool), idleState: make(map[string]topology.State),
		addressTaken: make(map[netip.AddrPort]bool), missing: make(map[string]bool),
	}
	serve := func(e topology.Endpoint) {
		h.serving, h.serves[e.Device], h.addressTaken[e.Address] = append(h.serving, e), true, true
	}
	for _, e := range built.Serving() {
		serve(e)
		dc.keepConfirmation(e.Device)
	}
	for _, e := range built.Idle {
		switch {
		case e.State == topology.Offline && !e.DrainRequested() && !h.addressTaken[e.Address] && (dc.envoyConfirms(e, "offline",
			"the list says that the device is offline, but its own Envoy %s connected, so it serves on: does it reach the coordination server?") ||
			dc.withinReturnGrace(e, was)):
			e.State = topology.Serving
			serve(e)
		default:
			h.idle = append(h.idle, e)
			h.addIdleState(e)
		}
	}
	confirmed, described := make(map[string]bool), maps.Clone(h.idleState)
	for id := range dc.input.Built.Drains {
		h.idleState[id] = topology.Drained // overrides the list
	}
	for _, e := range was.Published {
		drain, drained := dc.input.Built.Drains[e.Device]
		switch {
		case h.serves[e.Device]:
		case drained && described[e.Device] == "":
			e.State, e.DrainedBy = topology.Drained, drain.String()
			h.idle = append(h.idle, e)
		case drained || dc.listedIDs()[e.Device]:
		case !h.addressTaken[e.Address] && dc.envoyConfirms(e, "missing",
			"the list lacks the device, but its own Envoy %s connected, so it serves on: is the list whole?"):
			h.serving, h.addressTaken[e.Address] = append(h.serving, e), true
			confirmed[e.Device] = true
		default:
			h.missing[e.Device] = true
		}
	}
	maps.Copy(h.serves, confirmed)
	return h
}

// wakeAt makes the next decision due at a time.
func (dc *decider) wakeAt(at time.Time) {
	if next := &dc.decision.Topology.Next; next.IsZero() || at.Before(*next) {
		*next = at
	}
}

// addIdleState records why an endpoint is idle. A device that is offline does not
// leave by a drain, even if another of its endpoints is drained.
func (h evidence) addIdleState(e topology.Endpoint) {
	state := e.State
	if e.DrainRequested() {
		state = topology.Drained // overrides all else
	}
	if h.idleState[e.Device] != topology.Offline {
		h.idleState[e.Device] = state
	}
}

func (dc *decider) healthy() bool { return !dc.input.List.HealthySince.IsZero() }

// withoutTaken removes held endpoints whose address another device has now.
func (h evidence) withoutTaken(held []topology.Endpoint) []topology.Endpoint {
	return slices.DeleteFunc(held, func(e topology.Endpoint) bool { return h.addressTaken[e.Address] })
}

// idleBeside returns the idle endpoints that are not held.
func (h evidence) idleBeside(held []topology.Endpoint) []topology.Endpoint {
	ids := deviceIDs(held)
	return slices.DeleteFunc(slices.Clone(h.idle), func(e topology.Endpoint) bool {
		_, stays := slices.BinarySearch(ids, e.Device)
		return stays
	})
}

// deviceIDs returns the IDs of the endpoints' devices, sorted and unique.
func deviceIDs(endpoints []topology.Endpoint) []string {
	var ids []string
	for _, e := range endpoints {
		ids = append(ids, e.Device)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// lastDescribed returns the endpoints as devices described them last. The
// description of a device that is published or recently removed is kept while it
// gives none.
func lastDescribed(built topology.Service, was, now Service) []topology.Endpoint {
	all := slices.Concat(built.Serving(), built.Idle)
	describes := make(map[string]bool)
	for _, e := range all {
		describes[e.Device] = true
	}
	counts := make(map[string]bool)
	for _, e := range slices.Concat(now.Published, now.RecentlyRemoved) {
		counts[e.Device] = true
	}
	for _, e := range was.LastDescribed {
		if !describes[e.Device] && counts[e.Device] {
			all = append(all, e)
		}
	}
	return all
}
