package topology

// Explanation is how [Build] reads one device.
type Explanation struct {
	// Services are those that the device is an endpoint of; none if it is none.
	Services []Description `json:"services"`
	// Missing is what a device that is no endpoint lacks.
	Missing string `json:"missing,omitempty"`
	// Problems are what was ignored of its metadata.
	Problems []Problem `json:"problems"`
}

// Description is a device as the endpoint of one service.
type Description struct {
	Service string  `json:"service"`
	Values  []Value `json:"values"`
}

// Value is the value of a key, and where it comes from.
type Value struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	From  Source `json:"from"`
}

// Explain returns where each value of a device's endpoints comes from, by the code
// and the rules that [Build] uses.
func Explain(d Device, rules Rules) Explanation {
	b := newBuilder(rules)
	x := Explanation{Services: []Description{}, Problems: []Problem{}}
	specs := b.describe(&d)
	address, usable := b.address(&d)
	for i := range specs {
		if usable && d.Unreachable == "" {
			x.Services = append(x.Services, b.explain(b.member(&d, &specs[i], address, b.presence(&d)), &specs[i]))
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
		x.Missing = "it names neither a weight nor a service: give it a tag such as " + b.grammar.tag(b.grammar.rows[keyWeight].name, "1") + ", or a grant of " + Capability
	}
	return x
}

// explain describes an endpoint and the sources of its values.
func (b *builder) explain(m member, s *spec) Description {
	of := Description{Service: m.service}
	if m.DrainedBy != "" {
		of.Values = append(of.Values, Value{"drained", "by " + m.DrainedBy, Source{FromOperator, "`tailxds drain`"}})
	}
	for k, row := range b.grammar.rows {
		from := Source{FromDefault, "default"}
		if s.settings[k].given {
			from = s.settings[k].from
		}
		of.Values = append(of.Values, Value{row.name, row.text(row.get(m)), from})
	}
	return of
}
