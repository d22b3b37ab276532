package envoy

import (
	"net/netip"
	"testing"

	"google.golang.org/protobuf/proto"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tailxds/tailxds/internal/topology"
)

func TestLBEndpoints_nameThatIsNotUTF8_isSentWithReplacements(t *testing.T) {
	got := lbEndpoints([]topology.Endpoint{{Name: "a\xff", Address: netip.MustParseAddrPort("100.64.0.1:8080"), Weight: 3}}, 9000)
	want := &endpoint.LbEndpoint{
		HostIdentifier: &endpoint.LbEndpoint_Endpoint{Endpoint: &endpoint.Endpoint{
			Hostname: "a\uFFFD",
			Address: &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{
				Address: "100.64.0.1", PortSpecifier: &core.SocketAddress_PortValue{PortValue: 8080},
			}}},
			HealthCheckConfig: &endpoint.Endpoint_HealthCheckConfig{PortValue: 9000},
		}},
		LoadBalancingWeight: wrapperspb.UInt32(3),
	}
	if len(got) != 1 || !proto.Equal(got[0], want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if _, err := proto.Marshal(got[0]); err != nil {
		t.Errorf("it can't be sent: %v", err)
	}
}
