package topology

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Build turns devices into what is to be balanced, and tells what it ignored.
// It never fails: what is bad is left out, and the rest is served.
func Build(devices []Device, rules Rules) (Topology, []Problem) {
	t, problems, _ := Memory{}.Build(devices, rules)
	return t, problems
}

// inForce are the operators' words that count by now; it notes when the next one
// ends.
func (b *builder) inForce(words map[string]Drain) map[string]Drain {
	all := make(map[string]Drain)
	for id, d := range words {
		switch {
		case d.Until.IsZero():
		case !b.rules.Now.Before(d.Until):
			continue
		default:
			b.wake(d.Until)
		}
		all[id] = d
	}
	return all
}

type builder struct {
	rules    Rules
	grammar  grammar
	drains   map[string]Drain
	problems []Problem
	next     time.Time
	// unsure tells of the device that was described last whether anything that it
	// says can't be read, so that it depends on what it said before.
	unsure bool
}

func (b *builder) complain(d Device, subject, format string, args ...any) {
	b.problems = append(b.problems, Problem{Device: d.ID, Name: d.Name, Subject: subject, Reason: fmt.Sprintf(format, args...)})
}

// unique sorts the devices by ID, so that the lower ID wins every tie, and
// drops those that cannot be told apart.
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
			b.complain(*d, d.Name, "device ignored: it has no ID")
		case i > 0 && sorted[i-1].ID == d.ID:
			b.complain(*d, d.ID, "device ignored: another device in the list has the same ID")
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

// endpoint is what a device is in one service, with defaults for what it does
// not say.
func (b *builder) endpoint(d Device, s spec, address netip.Addr, state State) (service string, e Endpoint) {
	e = Endpoint{
		Device: d.ID, Name: d.Name, State: state,
		Weight: value(s.weight, 1), Priority: value(s.priority, 0),
		Region: value(s.region, ""), Zone: value(s.zone, ""),
		Address: netip.AddrPortFrom(address, uint16(value(s.port, uint32(b.rules.DefaultPort)))),
	}
	if drain, ok := b.drains[d.ID]; ok {
		e.DrainedBy = drain.String()
	}
	if e.DrainRequested() && state == Serving {
		e.State = Drained
	}
	return value(s.service, b.rules.DefaultService), e
}

func value[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

// address is the one of the device's own addresses that Envoys connect to.
func (b *builder) address(d Device) (netip.Addr, bool) {
	var v4, v6 netip.Addr // the first of each
	for _, s := range d.Addresses {
		a, err := netip.ParseAddr(s)
		a = a.Unmap()
		switch {
		case strings.Contains(s, "/"):
			b.complain(d, s, "address ignored: a subnet route is not an address of the device")
		case err != nil || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast():
			b.complain(d, s, "address ignored: not the unicast IP address of a device")
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
		b.complain(d, strings.Join(d.Addresses, ","), "device ignored: it has no usable tailnet address")
		return netip.Addr{}, false
	}
	return first, true
}

// presence judges a device by the clock, and notes when to look again. A key
// that ends goes before a connection that is away: it is the more certain.
func (b *builder) presence(d Device) State {
	now := b.rules.Now
	if d.Expires != nil {
		drain := d.Expires.Add(-b.rules.DrainWindow)
		switch {
		case !now.Before(*d.Expires):
			return Expired
		case !now.Before(drain):
			b.wake(*d.Expires)
			return Expiring
		}
		b.wake(drain)
	}
	if d.Online {
		return Serving
	}
	if d.OfflineSince == nil || !now.Before(d.OfflineSince.Add(b.rules.OfflineGrace)) {
		return Offline
	}
	b.wake(d.OfflineSince.Add(b.rules.OfflineGrace))
	return Serving
}

func (b *builder) wake(at time.Time) {
	if b.next.IsZero() || at.Before(b.next) {
		b.next = at
	}
}

// service groups the endpoints of one service, but for those that cannot be
// served beside the others.
func (b *builder) service(name string, endpoints []Endpoint) Service {
	sums := make(map[uint32]uint64)
	fits := func(e Endpoint) bool {
		if e.State != Serving {
			return true
		}
		// Envoy refuses a whole assignment whose weights overflow.
		if sums[e.Priority]+uint64(e.Weight) > math.MaxUint32 {
			b.complain(Device{ID: e.Device, Name: e.Name}, name, "endpoint ignored: the weights of priority %d add up to more than %d", e.Priority, uint32(math.MaxUint32))
			return false
		}
		sums[e.Priority] += uint64(e.Weight)
		return true
	}
	return NewService(name, slices.DeleteFunc(b.distinct(name, endpoints), func(e Endpoint) bool { return !fits(e) }))
}

// distinct drops endpoints whose address is taken: Envoy would count them
// once, and gRPC refuse them all. A device that is gone holds no address. The
// endpoints are the caller's no more.
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
				b.complain(Device{ID: e.Device, Name: e.Name}, e.Address.String(),
					"endpoint of service %q ignored: device %s (%s) has this address already", service, kept[first].Device, kept[first].Name)
				continue
			}
			owner[e.Address] = len(kept)
		}
		kept = append(kept, e)
	}
	return kept
}
