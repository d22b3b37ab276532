package xds

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// Callers is the name of the originating cluster: where requests enter, and how
// many of them, as Envoy's zone-aware routing needs to know it. No request is
// ever sent to it. Each Envoy has it in its bootstrap, as
// cluster_manager.local_cluster_name, so it is served always: an Envoy waits
// at its start for what a static cluster asks for.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/intro/arch_overview/upstream/load_balancing/zone_aware
const Callers = "tailxds-callers"

// nobody is a network for documentation (RFC 5737), whose addresses stand for
// the entries of a region.
var nobody = netip.MustParseAddr("192.0.2.0")

// buildCallers is the assignment of [Callers]: a host a region, whose weight is
// the region's part of all requests.
func buildCallers(entries map[string]uint32) (*endpoint.ClusterLoadAssignment, error) {
	cla := &endpoint.ClusterLoadAssignment{ClusterName: Callers}
	address := nobody
	for _, region := range slices.Sorted(maps.Keys(entries)) {
		if entries[region] == 0 {
			continue // Envoy refuses it
		}
		address = address.Next()
		cla.Endpoints = append(cla.Endpoints, &endpoint.LocalityLbEndpoints{
			Locality:            &core.Locality{Region: region},
			LoadBalancingWeight: wrapperspb.UInt32(entries[region]),
			LbEndpoints: []*endpoint.LbEndpoint{{
				HostIdentifier:      &endpoint.LbEndpoint_Endpoint{Endpoint: &endpoint.Endpoint{Address: socketAddress(address.String(), 9)}},
				LoadBalancingWeight: wrapperspb.UInt32(entries[region]),
			}},
		})
	}
	if err := cla.ValidateAll(); err != nil {
		return nil, fmt.Errorf("validate the entries of regions: %w", err)
	}
	return cla, nil
}

// SetEntries publishes how the world's requests are spread over the regions
// where they enter, in any unit. Envoys whose services are balanced to the
// nearest follow it at once.
func (s *Server) SetEntries(entries map[string]uint32) error {
	next, err := buildCallers(entries)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if proto.Equal(next, s.callers) {
		return nil
	}
	s.callers = next
	if s.published == nil {
		return nil // the first Set takes it along
	}
	s.streams.published()
	s.published.byType[resource.EndpointType][Callers] = next
	for region, c := range s.views {
		if set, ok := s.published.views[region]; ok {
			set[Callers] = next
		}
		if err := c.update(map[string]packed{Callers: c.pack(Callers, next, cache.MarshalResource)}, nil); err != nil {
			return fmt.Errorf("publish the entries of regions: %w", err)
		}
	}
	return nil
}

// Connected Envoys by the region that they are in.
func (s *streams) byRegion() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := make(map[string]int)
	for a := range s.open {
		if region := a.stream.Region; region != "" {
			n[region]++
		}
	}
	return n
}

// EnvoysByRegion is how many streams are open from each region.
func (s *Server) EnvoysByRegion() map[string]int { return s.streams.byRegion() }
