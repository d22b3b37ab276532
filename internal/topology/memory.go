package topology

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
)

// Memory is what one build leaves to the next, so that this reads only devices
// that are other than before, and groups only the services that they are in. It
// never makes a difference to what is built: that is what [Build] builds.
//
// The zero value remembers nothing. A Memory is never changed, and what is built
// with it shares its endpoints, so that these must not be changed either.
type Memory struct {
	rules    readBy
	devices  []*reading // by ID
	services map[string]grouping
}

// readBy is what of the rules decides how a device is read.
type readBy struct {
	defaultService string
	defaultPort    uint16
	preferIPv6     bool
	tagPrefix      string
}

// reading is what became of one device.
type reading struct {
	device Device // as it was read; a copy
	// unsure is true where what it said before decides too.
	unsure   bool
	specs    []spec
	address  netip.Addr
	problems []Problem
	// What is made of that also depends on the hour, and on operators.
	state   State
	drained string
	made    []member
}

// member is an endpoint and its service.
type member struct {
	service string
	Endpoint
}

// grouping is what became of one service.
type grouping struct {
	Service
	problems []Problem
}

// Build is what the function [Build] is, and gives the memory for the next.
func (m Memory) Build(devices []Device, rules Rules) (Topology, []Problem, Memory) {
	b := builder{rules: rules, grammar: newGrammar(rules.TagPrefix)}
	b.drains = b.inForce(rules.Drains)
	by := readBy{rules.DefaultService, rules.DefaultPort, rules.PreferIPv6, rules.TagPrefix}
	if m.rules != by {
		m = Memory{rules: by}
	}
	next := Memory{rules: by}
	touched := b.readAll(b.unique(devices), m.devices, &next)
	next.services = b.groupAll(touched, m.services, next.devices)

	t := Topology{Drains: b.drains, Next: b.next}
	for _, name := range slices.Sorted(maps.Keys(next.services)) {
		s := next.services[name]
		t.Services = append(t.Services, s.Service)
		b.problems = append(b.problems, s.problems...)
	}
	return t, b.problems, next
}

// readAll reads the devices, or takes over what was read of them before. It
// returns the services in which anything is other than before.
func (b *builder) readAll(devices []*Device, before []*reading, into *Memory) (touched map[string]bool) {
	touched = make(map[string]bool)
	touch := func(members []member) {
		for _, m := range members {
			touched[m.service] = true
		}
	}
	into.devices = make([]*reading, 0, len(devices))
	nothing := &reading{unsure: true} // that could be taken over
	for _, d := range devices {
		for len(before) > 0 && before[0].device.ID != d.ID && CompareIDs(before[0].device.ID, d.ID) < 0 {
			touch(before[0].made) // it is not in the list any more
			before = before[1:]
		}
		last := nothing
		if len(before) > 0 && before[0].device.ID == d.ID {
			last, before = before[0], before[1:]
		}
		now := b.read(d, last)
		if now != last && !slices.Equal(now.made, last.made) {
			touch(last.made)
			touch(now.made)
		}
		into.devices = append(into.devices, now)
	}
	for _, r := range before {
		touch(r.made)
	}
	return touched
}

// read is what becomes of a device: what became of it last, if all on which that
// depends is the same.
func (b *builder) read(d *Device, last *reading) *reading {
	r := last
	if last.unsure || !last.device.saysTheSameAs(d) {
		r = b.readAnew(d)
	} else {
		b.problems = append(b.problems, last.problems...)
	}
	if len(r.specs) == 0 || !r.address.IsValid() {
		return r
	}
	state, drained := b.presence(*d), ""
	if drain, ok := b.drains[d.ID]; ok {
		drained = drain.String()
	}
	if r.made != nil && r.state == state && r.drained == drained {
		return r
	}
	now := *r
	now.state, now.drained, now.made = state, drained, nil
	for _, s := range r.specs {
		service, e := b.endpoint(*d, s, r.address, state)
		now.made = append(now.made, member{service, e})
	}
	return &now
}

// readAnew reads what a device says.
func (b *builder) readAnew(d *Device) *reading {
	r := &reading{device: d.clone()}
	found := len(b.problems)
	r.specs = b.describe(r.device)
	r.unsure = b.unsure
	if r.device.Unreachable != "" && len(r.specs) > 0 {
		b.complain(r.device, "unreachable", "passed over: no other device can connect to it: %s", r.device.Unreachable)
		r.specs = nil
	}
	if len(r.specs) > 0 {
		r.address, _ = b.address(r.device)
	}
	r.problems = slices.Clone(b.problems[found:])
	return r
}

// saysTheSameAs compares all that is read of a device but for its presence.
func (d *Device) saysTheSameAs(o *Device) bool {
	return d.ID == o.ID && d.Name == o.Name && d.Unreachable == o.Unreachable && slices.Equal(d.Addresses, o.Addresses) && slices.Equal(d.Tags, o.Tags) &&
		maps.Equal(d.Attributes, o.Attributes) && slices.EqualFunc(d.Grants, o.Grants, func(a, b json.RawMessage) bool { return bytes.Equal(a, b) })
}

// clone copies what is read of a device, so that nobody can change it.
func (d *Device) clone() Device {
	c := Device{
		ID: d.ID, Name: d.Name, Unreachable: d.Unreachable, Addresses: slices.Clone(d.Addresses), Tags: slices.Clone(d.Tags),
		Attributes: maps.Clone(d.Attributes), Grants: slices.Clone(d.Grants),
	}
	for i := range c.Grants {
		c.Grants[i] = slices.Clone(c.Grants[i])
	}
	return c
}

func (s grouping) size() int {
	n := len(s.Idle)
	for _, l := range s.Localities {
		n += len(l.Endpoints)
	}
	return n
}

// groupAll groups the services that were touched, and takes over the others.
func (b *builder) groupAll(touched map[string]bool, before map[string]grouping, devices []*reading) map[string]grouping {
	members := make(map[string][]Endpoint, len(touched))
	if len(touched) > 0 {
		for _, r := range devices {
			for _, m := range r.made {
				if !touched[m.service] {
					continue
				}
				known, there := members[m.service]
				if !there { // most changes are small
					known = make([]Endpoint, 0, before[m.service].size()+1)
				}
				members[m.service] = append(known, m.Endpoint)
			}
		}
	}
	all := make(map[string]grouping, len(before)+len(members))
	for name, s := range before {
		if !touched[name] {
			all[name] = s
		}
	}
	if _, there := all[b.rules.DefaultService]; !there {
		members[b.rules.DefaultService] = append([]Endpoint(nil), members[b.rules.DefaultService]...)
	}
	for name, endpoints := range members {
		found := len(b.problems)
		s := grouping{Service: b.service(name, endpoints)}
		s.problems = slices.Clone(b.problems[found:])
		b.problems = b.problems[:found] // told in the order of the services
		all[name] = s
	}
	return all
}
