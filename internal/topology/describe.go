package topology

import (
	"maps"
	"slices"
)

// describe is what a device says of itself: one spec a service. Attributes win
// over grants, and grants over tags. Where a value can't be read, what the
// device said last counts.
func (b *builder) describe(d Device) []spec {
	tags, bad := b.grammar.parseTags(d.Tags)
	attributes, badAttributes := b.grammar.parseAttributes(d.Attributes)
	bad = append(bad, badAttributes...)
	one := attributes.over(tags)

	var specs []spec
	for _, raw := range d.Grants {
		s, complaints := b.grammar.parseGrant(raw)
		bad = append(bad, complaints...)
		specs = append(specs, attributes.over(s).over(tags))
	}
	for _, c := range bad {
		b.complain(d, c.subject, "%s", c.reason)
	}
	switch past := b.rules.LastGood[d.ID]; {
	case len(d.Grants) > 0:
		// A device that is granted anything is what its grants say: a bad one
		// must not move it to the service that its tags name.
		return b.mend(d, specs, past, func(s spec) bool { return len(s.bad) == 0 })
	case one.weight != nil || one.service != nil:
		return b.mend(d, []spec{one}, past, func(spec) bool { return true })
	case one.bad[keyWeight] || one.bad[keyService] || one.near[keyWeight] || one.near[keyService]:
		return b.mend(d, []spec{one}, past, func(spec) bool { return false })
	default:
		return nil
	}
}

// mend gives the specs of a device what they lack because it can't be read:
// what the device said last. Nobody is lost, moved or woken up by a slip of the
// pen. A spec without a past is left out unless it may be new, and always where
// its service is bad: the default service is another one.
func (b *builder) mend(d Device, specs []spec, past ServiceEndpoints, mayBeNew func(spec) bool) []spec {
	var mended, nameless []spec
	claimed := make(map[string]bool)
	for _, s := range specs {
		if s.bad[keyService] || (s.near[keyService] && len(past) > 0) {
			nameless = append(nameless, s)
			continue
		}
		service := value(s.service, b.rules.DefaultService)
		claimed[service] = true
		last, known := before(past[service], s)
		switch {
		case known && len(s.bad)+len(s.near) > 0:
			s = b.keep(d, service, s, last)
		case !known && !mayBeNew(s):
			continue
		}
		mended = append(mended, s)
	}
	if len(nameless) == 0 {
		return mended
	}
	// Which service was meant can't be told, so each that nobody claims stays.
	var open []string
	for _, service := range slices.Sorted(maps.Keys(past)) {
		if !claimed[service] {
			open = append(open, service)
		}
	}
	if len(nameless) == 1 && len(open) == 1 {
		last, _ := before(past[open[0]], nameless[0])
		return append(mended, b.keep(d, open[0], nameless[0], last))
	}
	for _, service := range open {
		for _, last := range past[service] {
			mended = append(mended, b.keep(d, service, spec{bad: allKeys(b.grammar)}, last))
		}
	}
	return mended
}

func allKeys(g grammar) keys {
	all := make(keys, len(g))
	for key := range g {
		all.add(key)
	}
	return all
}

// before is the endpoint that s was: the one with its port, or else the first.
func before(past []Endpoint, s spec) (Endpoint, bool) {
	if len(past) == 0 {
		return Endpoint{}, false
	}
	if s.port != nil && !s.bad[keyPort] {
		for _, e := range past {
			if uint32(e.Address.Port()) == *s.port {
				return e, true
			}
		}
	}
	return past[0], true
}

// keep takes the bad keys of s from the endpoint that it was.
func (b *builder) keep(d Device, service string, s spec, last Endpoint) spec {
	b.complain(d, service, "keeps in this service what can't be read as it was last, until its metadata is mended")
	port := uint32(last.Address.Port())
	for key := range s.open(s.bad, s.near) {
		switch key {
		case keyWeight:
			s.weight = &last.Weight
		case keyPort:
			s.port = &port
		case keyPriority:
			s.priority = &last.Priority
		case keyService:
			s.service = &service
		case keyRegion:
			s.region = &last.Region
		case keyZone:
			s.zone = &last.Zone
		}
	}
	return s
}
