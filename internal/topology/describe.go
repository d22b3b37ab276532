package topology

import (
	"maps"
	"slices"
)

// describe returns the specs of a device, one for each service. Attributes win
// over grants, and grants over tags. Where a value can't be read, the last valid one
// counts.
func (b *builder) describe(d *Device) []spec {
	tags, found := b.grammar.parseTags(d.Tags)
	attributes, more := b.grammar.parseAttributes(d.Attributes)
	found = append(found, more...)
	own := attributes.over(&tags)

	var granted []spec
	for _, raw := range d.Grants {
		s, more := b.grammar.parseGrant(raw)
		found = append(found, more...)
		s = attributes.over(&s)
		granted = append(granted, s.over(&tags))
	}
	for _, f := range found {
		b.addProblem(d, f.subject, "%s", f.reason)
	}
	given, rejected := false, false
	for k := range b.grammar.rows {
		if b.grammar.rows[k].makesEndpoint {
			given = given || own.settings[k].given
			rejected = rejected || own.settings[k].reject
		}
	}
	var last []member
	if own.hasInvalid() || slices.ContainsFunc(granted, func(s spec) bool { return s.hasInvalid() }) {
		if b.rules.LastGood != nil {
			last = membersOf(b.rules.LastGood(d.ID))
		}
	} else if len(d.Grants) > 0 { // all of it counts
		return granted
	} else if given {
		return []spec{own}
	}
	switch {
	case len(d.Grants) > 0:
		// Grants decide: an invalid one must not move the device to the service that
		// its tags name.
		return b.fillFromLast(d, granted, last, func(s *spec) bool { return !s.hasInvalid() })
	case given:
		return b.fillFromLast(d, []spec{own}, last, func(s *spec) bool { return !s.unknownKey })
	case rejected || own.unknownKey:
		return b.fillFromLast(d, []spec{own}, last, func(*spec) bool { return false })
	default:
		return nil
	}
}

// membersOf lists endpoints with their services, in the order of these.
func membersOf(endpoints ServiceEndpoints) []member {
	var all []member
	for _, service := range slices.Sorted(maps.Keys(endpoints)) {
		for _, e := range endpoints[service] {
			all = append(all, member{service, e})
		}
	}
	return all
}

// fillFromLast replaces what can't be read in the specs of a device by its last valid
// values, so that no typo removes, moves or undrains a device. A spec without
// a past is left out unless mayJoin allows it, and always if its service is invalid:
// the default service is another one.
func (b *builder) fillFromLast(d *Device, specs []spec, last []member, mayJoin func(*spec) bool) []spec {
	var named, nameless, filled []spec
	for _, s := range specs {
		if s.settings[keyService].reject || (len(last) > 0 && s.invalid(keyService)) {
			nameless = append(nameless, s)
		} else {
			named = append(named, s)
		}
	}
	unplaced := false
	matches, open := b.match(named, last)
	for i, s := range named {
		switch m := matches[i]; {
		case m != nil && s.hasInvalid():
			filled = append(filled, b.applyLast(d, s, *m))
		case m != nil || mayJoin(&s):
			filled = append(filled, s)
		case s.unknownKey:
			unplaced = true
		}
	}
	// A spec without a readable service belongs to the endpoint that is left, if it is
	// the only one. Else all that are left stay as they were until the metadata is fixed.
	if len(nameless) == 1 && len(open) == 1 && !unplaced {
		return append(filled, b.applyLast(d, nameless[0], open[0]))
	}
	if len(nameless) > 0 || unplaced {
		var unread spec
		unread.rejectAll()
		for _, m := range open {
			filled = append(filled, b.applyLast(d, unread, m))
		}
	}
	return filled
}

// match finds the last endpoint of each spec: the one of its service with its
// port, or else one that no other spec matches. It also returns the endpoints that
// no spec matches. A further spec of an endpoint has the past of the first.
func (b *builder) match(specs []spec, last []member) (matches []*member, open []member) {
	open = slices.Clone(last)
	matches = make([]*member, len(specs))
	for _, exactly := range []bool{true, false} {
		for i := range specs {
			s := &specs[i]
			same := func(m member) bool {
				return m.service == b.valueOf(s, keyService).name && (!exactly || b.samePort(s, m))
			}
			if matches[i] != nil {
				continue
			}
			if at := slices.IndexFunc(open, same); at >= 0 {
				m := open[at]
				matches[i], open = &m, slices.Delete(open, at, at+1)
			} else if !exactly {
				// A valid port that is new is another endpoint, without a past.
				at := slices.IndexFunc(last, func(m member) bool { return same(m) && (s.invalid(keyPort) || b.samePort(s, m)) })
				if at >= 0 {
					matches[i] = &last[at]
				}
			}
		}
	}
	return matches, open
}

// samePort reports whether a spec has a valid port, and an endpoint has the same.
func (b *builder) samePort(s *spec, m member) bool {
	return !s.invalid(keyPort) && b.valueOf(s, keyPort) == b.grammar.rows[keyPort].get(m)
}

// valueOf returns the value of a key: the spec's, or the default.
func (b *builder) valueOf(s *spec, k key) value {
	if s.settings[k].given {
		return s.settings[k].value
	}
	return b.grammar.rows[k].fallback(b.rules)
}

// applyLast takes what can't be read in s from the endpoint that it was last.
func (b *builder) applyLast(d *Device, s spec, last member) spec {
	b.addProblem(d, last.service, "keeps its last valid values in this service until its metadata is fixed")
	for k, row := range b.grammar.rows {
		if !s.invalid(key(k)) {
			continue
		}
		at := &s.settings[k]
		drained := key(k) == keyWeight && at.given && at.value.number == 0 // a drain counts: nothing is lower
		if !drained {
			at.value, at.given = row.get(last), true
		}
		at.from = Source{FromLast, "last valid value: the current one can't be read"}
	}
	return s
}
