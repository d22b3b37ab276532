package topology

import "strconv"

// Source is where a value comes from.
type Source struct {
	Kind SourceKind `json:"kind"`
	// Text is the tag, grant or attribute as it was written, or says what else.
	Text string `json:"text"`
}

// SourceKind says what kind of source it is.
type SourceKind string

// The kinds of sources, in the order in which they win.
const (
	FromOperator  SourceKind = "operator"
	FromAttribute SourceKind = "attribute"
	FromGrant     SourceKind = "grant"
	FromTag       SourceKind = "tag"
	FromDefault   SourceKind = "default"
	// Kept is a value that a device said last, where what it says now can't be
	// read.
	Kept SourceKind = "kept"
)

// said notes where the value of a key was said.
func (s *spec) said(key string, from Source) {
	if s.from == nil {
		s.from = make(map[string]Source)
	}
	s.from[key] = from
}

// Explanation tells how [Build] comes to what it makes of one device.
type Explanation struct {
	// Services are those that the device is an endpoint of; none if it is none.
	Services []Description `json:"services"`
	// Missing says what a device that is no endpoint lacks.
	Missing string `json:"missing,omitempty"`
	// Problems are what was ignored of what it says.
	Problems []Problem `json:"problems"`
}

// Description is one service that a device says it is an endpoint of.
type Description struct {
	Service string  `json:"service"`
	Values  []Value `json:"values"`
}

// Value is one that counts, and where it comes from.
type Value struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	From  Source `json:"from"`
}

// Explain tells where each value of a device's endpoints comes from, by the code
// and the rules that [Build] decides by.
func Explain(d Device, rules Rules) Explanation {
	b := builder{rules: rules, grammar: newGrammar(rules.TagPrefix)}
	b.drains = b.inForce(rules.Drains)
	x := Explanation{Services: []Description{}, Problems: []Problem{}}
	specs := b.describe(d)
	address, usable := b.address(d)
	for _, said := range specs {
		if usable && d.Unreachable == "" {
			service, e := b.endpoint(d, said, address, b.presence(d))
			x.Services = append(x.Services, explain(service, e, said.from))
		}
	}
	x.Problems = append(x.Problems, b.problems...)
	switch {
	case len(x.Services) > 0:
	case len(specs) > 0 && d.Unreachable != "":
		x.Missing = "no other device can connect to it: " + d.Unreachable
	case len(specs) > 0:
		x.Missing = "it has no tailnet address that can be used"
	case len(x.Problems) > 0:
		x.Missing = "what it says of a service can't be read: see its problems"
	default:
		x.Missing = "it names neither a weight nor a service: give it a tag such as " + b.grammar.tag(keyWeight, "1") + ", or a grant of " + Capability
	}
	return x
}

// explain tells of one service.
func explain(service string, e Endpoint, from map[string]Source) Description {
	of := Description{Service: service}
	if e.DrainedBy != "" {
		of.Values = append(of.Values, Value{"drained", "by " + e.DrainedBy, Source{FromOperator, "`tailxds drain`"}})
	}
	number := func(n uint32) string { return strconv.Itoa(int(n)) }
	for _, v := range []Value{
		{Key: keyService, Value: service},
		{Key: keyWeight, Value: number(e.Weight)},
		{Key: keyRegion, Value: e.Region},
		{Key: keyZone, Value: e.Zone},
		{Key: keyPort, Value: number(uint32(e.Address.Port()))},
		{Key: keyPriority, Value: number(e.Priority)},
	} {
		v.From = Source{FromDefault, "default"}
		if said, ok := from[v.Key]; ok {
			v.From = said
		}
		of.Values = append(of.Values, v)
	}
	return of
}
