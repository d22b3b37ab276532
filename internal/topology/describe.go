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
	b.unsure = one.unsure() || slices.ContainsFunc(specs, spec.unsure)
	for _, c := range bad {
		b.complain(d, c.subject, "%s", c.reason)
	}
	var past ServiceEndpoints
	if b.unsure && b.rules.LastGood != nil {
		past = b.rules.LastGood(d.ID)
	}
	switch {
	case len(d.Grants) > 0:
		// A device that is granted anything is what its grants say: a bad one
		// must not move it to the service that its tags name.
		return b.mend(d, specs, past, func(s spec) bool { return !s.unsure() })
	case one.weight != nil || one.service != nil:
		return b.mend(d, []spec{one}, past, func(s spec) bool { return !s.unknownKey })
	case one.bad[keyWeight] || one.bad[keyService] || one.unknownKey:
		return b.mend(d, []spec{one}, past, func(spec) bool { return false })
	default:
		return nil
	}
}

// unsure reports whether anything was said that can't be read.
func (s spec) unsure() bool { return len(s.bad) > 0 || s.unknownKey }

// unreadable reports whether what was said of a key can't be read.
func (s spec) unreadable(key string) bool { return s.bad[key] || (s.unknownKey && !s.says(key)) }

// mend gives the specs of a device what they lack because it can't be read:
// what the device said last. No device is lost, moved or woken up by a slip of the
// pen. A spec without a past is left out unless it may be new, and always where
// its service is bad: the default service is another one.
func (b *builder) mend(d Device, specs []spec, past ServiceEndpoints, mayBeNew func(spec) bool) []spec {
	var named, nameless, mended []spec
	unplaced := false
	for _, s := range specs {
		if s.bad[keyService] || (len(past) > 0 && s.unreadable(keyService)) {
			nameless = append(nameless, s)
		} else {
			named = append(named, s)
		}
	}
	before, open := b.match(named, past)
	for i, s := range named {
		switch last := before[i]; {
		case last != nil && s.unsure():
			mended = append(mended, b.keep(d, last.service, s, last.Endpoint))
		case last != nil || mayBeNew(s):
			mended = append(mended, s)
		case s.unknownKey:
			unplaced = true
		}
	}
	// Which service was meant can't be told, unless one endpoint alone is left.
	switch {
	case unplaced: // it moves once it can be read
		for _, last := range open {
			mended = append(mended, b.keep(d, last.service, spec{bad: allKeys(b.grammar)}, last.Endpoint))
		}
	case len(nameless) == 0:
	case len(nameless) == 1 && len(open) == 1:
		mended = append(mended, b.keep(d, open[0].service, nameless[0], open[0].Endpoint))
	default:
		for _, last := range open {
			mended = append(mended, b.keep(d, last.service, spec{bad: allKeys(b.grammar)}, last.Endpoint))
		}
	}
	return mended
}

func allKeys(g grammar) keys {
	all := make(keys, len(g.rows))
	for key := range g.rows {
		all.add(key)
	}
	return all
}

// said is an endpoint that a device described last.
type said struct {
	service string
	Endpoint
}

// match finds the endpoint that each spec was: the one of its service with its
// port, or else one that no other spec was. It also returns those that nobody
// was. A further spec of an endpoint has the past of the first.
func (b *builder) match(specs []spec, past ServiceEndpoints) (before []*said, open []said) {
	for _, service := range slices.Sorted(maps.Keys(past)) {
		for _, e := range past[service] {
			open = append(open, said{service, e})
		}
	}
	all := slices.Clone(open)
	before = make([]*said, len(specs))
	for _, exactly := range []bool{true, false} {
		for i, s := range specs {
			is := func(last said) bool {
				return last.service == value(s.service, b.rules.DefaultService) && (!exactly || b.samePort(s, last.Endpoint))
			}
			if before[i] != nil {
				continue
			}
			if at := slices.IndexFunc(open, is); at >= 0 {
				before[i] = &said{open[at].service, open[at].Endpoint}
				open = slices.Delete(open, at, at+1)
			} else if !exactly {
				// A readable port that is new is another endpoint, without a past.
				before[i] = first(all, func(last said) bool { return is(last) && (s.unreadable(keyPort) || b.samePort(s, last.Endpoint)) })
			}
		}
	}
	return before, open
}

func first(all []said, is func(said) bool) *said {
	if at := slices.IndexFunc(all, is); at >= 0 {
		return &all[at]
	}
	return nil
}

// samePort tells whether a spec has the port of an endpoint, as far as it can be read.
func (b *builder) samePort(s spec, e Endpoint) bool {
	return !s.unreadable(keyPort) && value(s.port, uint32(b.rules.DefaultPort)) == uint32(e.Address.Port())
}

// keep takes what of s can't be read from the endpoint that it was.
func (b *builder) keep(d Device, service string, s spec, last Endpoint) spec {
	b.complain(d, service, "keeps in this service what can't be read as it was last, until its metadata is mended")
	port := uint32(last.Address.Port())
	s.from = maps.Clone(s.from)
	for key := range b.grammar.rows {
		if !s.unreadable(key) {
			continue
		}
		s.said(key, Source{Kept, "as it was last, since what is said now can't be read"})
		switch key {
		case keyWeight:
			if s.weight == nil || *s.weight != 0 { // a drain that can be read counts: nothing is lower
				s.weight = &last.Weight
			}
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
