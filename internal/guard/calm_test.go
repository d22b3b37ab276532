package guard

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/tailxds/tailxds/internal/topology"
)

// wide is a memory that has every service judged, and every device looked for.
func wide(m Memory) Memory {
	m.known = nil
	m.Services = maps.Clone(m.Services)
	for name, s := range m.Services {
		s.calm = topology.Service{}
		m.Services[name] = s
	}
	return m
}

// A service that is built with nobody lost or idle is taken as it is; else it is
// judged.
func TestWhatIsCalmIsPassedOver(t *testing.T) {
	both := append(fleet("a", 3), device(8, "tag:service-b"), device(9, "tag:service-b"))
	for name, c := range map[string]struct {
		list   []topology.Device
		calm   bool
		drains map[string]topology.Drain
	}{
		"the same":            {both, true, nil},
		"a weight":            {retag(both, []string{"tag:service-b", "tag:weight-3"}, 9), true, nil},
		"a device more":       {append(slices.Clip(both), device(10, "tag:service-b")), true, nil},
		"a drain":             {retag(both, []string{"tag:service-b", "tag:weight-0"}, 9), false, nil},
		"a device less":       {both[:4], false, nil},
		"another":             {append(slices.Clip(both[:4]), device(10, "tag:service-b")), false, nil},
		"an operator's drain": {both, false, map[string]topology.Drain{"9": {By: "ann"}}},
	} {
		w := newWorld(t)
		w.list(time.Second, both)
		w.drains = c.drains
		w.list(time.Second, c.list)
		passed := func(name string) bool {
			at := func(t topology.Topology) *topology.Endpoint {
				for _, s := range t.Services {
					if s.Name == name {
						return &s.Localities[0].Endpoints[0]
					}
				}
				return nil
			}
			return at(w.built) == at(w.last.Topology)
		}
		if !passed("a") || passed("b") != c.calm {
			t.Errorf("%s in b: a was passed over %t, b %t", name, passed("a"), passed("b"))
		}
	}
}
