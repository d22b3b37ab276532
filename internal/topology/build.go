package topology

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Build turns devices into services, and returns what it ignored. It never fails:
// it leaves out what is invalid, and serves the rest.
func Build(devices []Device, rules Rules) (Topology, []Problem) {
	b := newBuilder(rules)
	services := map[string][]Endpoint{rules.DefaultService: nil} // it exists without endpoints, too
	for _, d := range b.unique(devices) {
		for _, m := range b.members(d) {
			services[m.service] = append(services[m.service], m.Endpoint)
		}
	}
	t := Topology{Drains: b.drains}
	for _, name := range slices.Sorted(maps.Keys(services)) {
		t.Services = append(t.Services, b.service(name, services[name]))
	}
	t.Next = b.next
	return t, b.problems
}

// builder collects what one build finds on its way.
type builder struct {
	rules    Rules
	grammar  grammar
	drains   map[string]Drain // that are active now
	problems []Problem
	next     time.Time
}

func newBuilder(rules Rules) *builder {
	b := &builder{rules: rules, grammar: newGrammar(rules.TagPrefix), drains: make(map[string]Drain)}
	for id, d := range rules.Drains {
		if !d.Until.IsZero() {
			if !rules.Now.Before(d.Until) {
				continue
			}
			b.changeAt(d.Until)
		}
		b.drains[id] = d
	}
	return b
}

func (b *builder) addProblem(d *Device, subject, format string, args ...any) {
	b.problems = append(b.problems, Problem{Device: d.ID, Name: d.Name, Subject: subject, Reason: fmt.Sprintf(format, args...)})
}

// changeAt notes that time alone changes the topology then.
func (b *builder) changeAt(at time.Time) {
	if b.next.IsZero() || at.Before(b.next) {
		b.next = at
	}
}

// unique sorts the devices by ID, so that the lower ID wins every tie, and
// drops those without an ID of their own.
func (b *builder) unique(devices []Device) []*Device {
	sorted := make([]*Device, len(devices))
	for i := range devices {
		sorted[i] = &devices[i]
	}
	slices.SortStableFunc(sorted, func(a, b *Device) int { return CompareIDs(a.ID, b.ID) })
	kept := make([]*Device, 0, len(sorted))
	for i, d := range sorted {
		switch {
		case d.ID == "":
			b.addProblem(d, d.Name, "device ignored: it has no ID")
		case i > 0 && sorted[i-1].ID == d.ID:
			b.addProblem(d, d.ID, "device ignored: another device in the list has the same ID")
		default:
			kept = append(kept, d)
		}
	}
	return kept
}

// CompareIDs orders device IDs: none, then numbers by value, then texts.
func CompareIDs(a, b string) int {
	numberA, numberB := isNumber(a), isNumber(b)
	switch {
	case numberA && numberB:
		valueA, valueB := strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
		return cmp.Or(cmp.Compare(len(valueA), len(valueB)), strings.Compare(valueA, valueB), strings.Compare(a, b))
	case numberA:
		return -1
	case numberB:
		return 1
	default:
		return strings.Compare(a, b)
	}
}

func isNumber(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// members returns the endpoints of a device, one for each service it is in.
func (b *builder) members(d *Device) []member {
	specs := b.describe(d)
	if len(specs) == 0 {
		return nil
	}
	if d.Unreachable != "" {
		b.addProblem(d, "unreachable", "passed over: no other device can connect to it: %s", d.Unreachable)
		return nil
	}
	address, usable := b.address(d)
	if !usable {
		return nil
	}
	state := b.presence(d)
	members := make([]member, len(specs))
	for i := range specs {
		members[i] = b.member(d, &specs[i], address, state)
	}
	return members
}

// member returns the endpoint of a device in one service, with defaults for the keys
// that its spec leaves out.
func (b *builder) member(d *Device, s *spec, address netip.Addr, state State) member {
	m := member{Endpoint: Endpoint{Device: d.ID, Name: d.Name, State: state, Address: netip.AddrPortFrom(address, 0)}}
	for k := range b.grammar.rows {
		b.grammar.rows[k].set(&m, b.valueOf(s, key(k)))
	}
	if drain, ok := b.drains[d.ID]; ok {
		m.DrainedBy = drain.String()
	}
	if m.DrainRequested() && state == Serving {
		m.State = Drained
	}
	return m
}

// address returns the one of the device's own addresses that Envoys connect to.
func (b *builder) address(d *Device) (netip.Addr, bool) {
	var v4, v6 netip.Addr // the first of each
	for _, s := range d.Addresses {
		a, err := netip.ParseAddr(s)
		a = a.Unmap()
		switch {
		case strings.Contains(s, "/"):
			b.addProblem(d, s, "address ignored: a subnet route is not an address of the device")
		case err != nil || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast():
			b.addProblem(d, s, "address ignored: not the unicast IP address of a device")
		case a.Is4() && !v4.IsValid():
			v4 = a
		case a.Is6() && !v6.IsValid():
			v6 = a
		}
	}
	first, second := v4, v6
	if b.rules.PreferIPv6 {
		first, second = v6, v4
	}
	if !first.IsValid() {
		first = second
	}
	if !first.IsValid() {
		b.addProblem(d, strings.Join(d.Addresses, ","), "device ignored: it has no usable tailnet address")
		return netip.Addr{}, false
	}
	return first, true
}

// presence returns the state of a device by its key and its connection, and notes
// when time changes it. An expired key decides before a lost connection: it is
// certain.
func (b *builder) presence(d *Device) State {
	now := b.rules.Now
	if d.Expires != nil {
		drain := d.Expires.Add(-b.rules.DrainWindow)
		switch {
		case !now.Before(*d.Expires):
			return Expired
		case !now.Before(drain):
			b.changeAt(*d.Expires)
			return Expiring
		}
		b.changeAt(drain)
	}
	if d.Online {
		return Serving
	}
	if d.OfflineSince == nil || !now.Before(d.OfflineSince.Add(b.rules.OfflineGrace)) {
		return Offline
	}
	b.changeAt(d.OfflineSince.Add(b.rules.OfflineGrace))
	return Serving
}

// service groups the endpoints of one service, without those that can't be served
// together.
func (b *builder) service(name string, endpoints []Endpoint) Service {
	sums := make(map[uint32]uint64)
	fits := func(e Endpoint) bool {
		if e.State != Serving {
			return true
		}
		// Envoy refuses a whole assignment whose weights overflow.
		if sums[e.Priority]+uint64(e.Weight) > math.MaxUint32 {
			b.addProblem(&Device{ID: e.Device, Name: e.Name}, name, "endpoint ignored: the weights of priority %d add up to more than %d", e.Priority, uint32(math.MaxUint32))
			return false
		}
		sums[e.Priority] += uint64(e.Weight)
		return true
	}
	return NewService(name, slices.DeleteFunc(b.distinct(name, endpoints), func(e Endpoint) bool { return !fits(e) }))
}

// distinct drops endpoints whose address another one has: Envoy would count them
// once, and gRPC refuse them all. A device that is gone holds no address. It reuses
// the slice.
func (b *builder) distinct(service string, endpoints []Endpoint) []Endpoint {
	// By device first, so that the lowest ID keeps the address; then by weight,
	// so that of one device's own the lowest counts, as with tags.
	slices.SortStableFunc(endpoints, func(a, b Endpoint) int {
		return cmp.Or(CompareIDs(a.Device, b.Device), cmp.Compare(a.Weight, b.Weight))
	})
	owner := make(map[netip.AddrPort]int, len(endpoints)) // its place among the kept
	kept := endpoints[:0]
	for _, e := range endpoints {
		if e.present() {
			if first, taken := owner[e.Address]; taken {
				b.addProblem(&Device{ID: e.Device, Name: e.Name}, e.Address.String(),
					"endpoint of service %q ignored: device %s (%s) has this address already", service, kept[first].Device, kept[first].Name)
				continue
			}
			owner[e.Address] = len(kept)
		}
		kept = append(kept, e)
	}
	return kept
}
