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

// ManyDevices is a tailnet of n devices in services of 100.
func ManyDevices(n int) []topology.Device {
	all := make([]topology.Device, n)
	for i := range all {
		all[i] = topology.Device{
			ID: fmt.Sprint(i + 1), Name: fmt.Sprintf("d%d", i), Online: true,
			Addresses: []string{fmt.Sprintf("100.%d.%d.%d", 64+i>>16, i>>8&255, i&255), fmt.Sprintf("fd7a:115c:a1e0::%x", i+1)},
			Tags:      []string{fmt.Sprintf("tag:service-s%d", i/100), fmt.Sprintf("tag:weight-%d", 1+i%9), "tag:region-west", "tag:unrelated"},
		}
	}
	return all
}
