package envoy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"google.golang.org/protobuf/types/known/wrapperspb"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
)

// LocalCluster is the name of the originating cluster: where requests enter, and how
// many of them, as Envoy's zone-aware routing needs to know it. No request is
// ever sent to it. Each Envoy has it in its bootstrap, as
// cluster_manager.local_cluster_name, so it is served always: an Envoy waits
// at its start for what a static cluster asks for.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/intro/arch_overview/upstream/load_balancing/zone_aware
const LocalCluster = "tailxds-callers"

// placeholderNetwork is a network for documentation (RFC 5737), whose addresses stand
// for the entries of a region.
var placeholderNetwork = netip.MustParseAddr("192.0.2.0")

// buildLocalCluster returns the assignment of [LocalCluster]: a host a region, whose
// weight is the region's part of all requests.
func buildLocalCluster(weights map[string]uint32) (*endpoint.ClusterLoadAssignment, error) {
	cla := &endpoint.ClusterLoadAssignment{ClusterName: LocalCluster}
	address := placeholderNetwork
	for _, region := range slices.Sorted(maps.Keys(weights)) {
		if weights[region] == 0 {
			continue // Envoy refuses it
		}
		address = address.Next()
		cla.Endpoints = append(cla.Endpoints, &endpoint.LocalityLbEndpoints{
			Locality:            &core.Locality{Region: region},
			LoadBalancingWeight: wrapperspb.UInt32(weights[region]),
			LbEndpoints: []*endpoint.LbEndpoint{{
				HostIdentifier:      &endpoint.LbEndpoint_Endpoint{Endpoint: &endpoint.Endpoint{Address: socketAddress(address.String(), 9)}},
				LoadBalancingWeight: wrapperspb.UInt32(weights[region]),
			}},
		})
	}
	if err := cla.ValidateAll(); err != nil {
		return nil, fmt.Errorf("validate the entries of regions: %w", err)
	}
	return cla, nil
}
