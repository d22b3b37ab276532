package envoy

import (
	"strings"

	"google.golang.org/protobuf/types/known/wrapperspb"

	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/tailxds/tailxds/internal/topology"
)

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
