// Package topologytest makes topologies for tests.
package topologytest

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/tailxds/tailxds/internal/topology"
)

// Rules are those of a control plane with default settings, whose default service
// is "server".
func Rules() topology.Rules {
	return topology.Rules{DefaultService: "server", DefaultPort: 8080, Now: time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)}
}

// Of returns the topology of devices that are online, given their tags by ID. The
// device "d7" has the name "d7" and the address 100.64.0.7.
func Of(tags map[string][]string) topology.Topology {
	var devices []topology.Device
	for id, t := range tags {
		var n int
		_, _ = fmt.Sscanf(id, "d%d", &n)
		devices = append(devices, topology.Device{ID: id, Name: id, Addresses: []string{netip.AddrFrom4([4]byte{100, 64, 0, byte(n)}).String()}, Tags: t, Online: true})
	}
	top, _ := topology.Build(devices, Rules())
	return top
}

// OneService returns a topology of the service "server" with the devices d1 and d2,
// of weights 1 and 2.
func OneService() topology.Topology {
	return Of(map[string][]string{"d1": {"tag:weight-1"}, "d2": {"tag:weight-2"}})
}
