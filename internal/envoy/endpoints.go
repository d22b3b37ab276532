package envoy

import (
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/tailxds/tailxds/internal/topology"
)

// buildEndpoints are the service's assignment for callers of no region.
func buildEndpoints(in serviceInput) ([]proto.Message, error) { return endpointsFor(in, "") }

// endpointsFor are the service's assignment as the callers of a region get it,
// once under each of its names, and that of gRPC clients. Its locality weights are the sums of their
// endpoints', so that a weight means the same in every region.
func endpointsFor(in serviceInput, region string) ([]proto.Message, error) {
	var localities []*endpoint.LocalityLbEndpoints
	for _, l := range arrangeForRegion(in.service, in.policy, region).Localities {
		locality := &endpoint.LocalityLbEndpoints{
			Locality:            &core.Locality{Region: l.Region, Zone: l.Zone},
			Priority:            l.Priority,
			LoadBalancingWeight: wrapperspb.UInt32(l.Weight),
		}
		locality.LbEndpoints = lbEndpoints(l.Endpoints, uint32(in.policy.HealthCheck.Port))
		localities = append(localities, locality)
	}
	policy := overprovisioning(in.policy, localities)
	var all []proto.Message
	for _, name := range in.assignments {
		all = append(all, &endpoint.ClusterLoadAssignment{ClusterName: name, Endpoints: localities, Policy: policy})
	}
	if in.policy.SpeaksGRPC() {
		all = append(all, grpcAssignment(in, localities))
	}
	return all, nil
}

// lbEndpoints converts endpoints to their Envoy messages. Health checks go to port
// checkedAt; 0 is the endpoint's own.
func lbEndpoints(all []topology.Endpoint, checkedAt uint32) []*endpoint.LbEndpoint {
	var check *endpoint.Endpoint_HealthCheckConfig
	if checkedAt > 0 {
		check = &endpoint.Endpoint_HealthCheckConfig{PortValue: checkedAt}
	}
	converted := make([]*endpoint.LbEndpoint, 0, len(all))
	for _, e := range all {
		converted = append(converted, &endpoint.LbEndpoint{
			HostIdentifier: &endpoint.LbEndpoint_Endpoint{Endpoint: &endpoint.Endpoint{
				// Text that is not UTF-8 can't be sent, and would fail every stream.
				Hostname:          strings.ToValidUTF8(e.Name, "\uFFFD"),
				Address:           socketAddress(e.Address.Addr().String(), e.Address.Port()),
				HealthCheckConfig: check,
			}},
			LoadBalancingWeight: wrapperspb.UInt32(e.Weight),
		})
	}
	return converted
}
