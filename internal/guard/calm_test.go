package guard

import (
	"maps"
	"testing"
	"time"

	"github.com/tailxds/tailxds/internal/topology"
)

// wide is a memory that has every service judged.
func wide(m Memory) Memory {
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
	w := newWorld(t)
	both := append(fleet("a", 3), device(8, "tag:service-b"), device(9, "tag:service-b"))
	w.list(time.Second, both)
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
	w.list(time.Second, both)
	if !passed("a") || !passed("b") {
		t.Error("what did not change was judged")
	}
	for name, list := range map[string][]topology.Device{
		"a weight": retag(both, []string{"tag:service-b", "tag:weight-3"}, 9), "a device more": append(both, device(10, "tag:service-b")),
	} {
		w.list(time.Second, list)
		if !passed("a") || !passed("b") {
			t.Errorf("%s in b: a was passed over %t, b %t", name, passed("a"), passed("b"))
		}
		w.list(time.Second, both)
		w.list(time.Second, both)
		w.list(time.Hour, both)
	}
	for name, list := range map[string][]topology.Device{
		"a drain":       retag(both, []string{"tag:service-b", "tag:weight-0"}, 9),
		"a device less": both[:4],
	} {
		w.list(time.Second, list)
		if !passed("a") || passed("b") {
			t.Errorf("%s in b: a was passed over %t, b %t", name, passed("a"), passed("b"))
		}
		w.list(time.Second, both)
		w.list(time.Second, both)
	}
}
