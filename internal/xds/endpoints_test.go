package xds

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"pgregory.net/rapid"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"

	"github.com/tailxds/tailxds/internal/topology"
)

// Whatever the builds before had, and whichever of them failed, endpoints are the
// same as if they were made for the first time: as messages, by Envoy's rules, and
// as bytes.
func TestEndpointsAreTakenOverAsTheyWouldBeMade(t *testing.T) {
	one := rapid.Custom(func(t *rapid.T) topology.Endpoint {
		address := netip.AddrFrom4([4]byte{100, 64, 0, byte(rapid.IntRange(1, 3).Draw(t, "address"))})
		return topology.Endpoint{
			Name:    rapid.SampledFrom([]string{"a", "b", "\xff", ""}).Draw(t, "name"),
			Address: netip.AddrPortFrom(address, uint16(rapid.SampledFrom([]int{80, 81}).Draw(t, "port"))),
			Weight:  uint32(rapid.SampledFrom([]int{0, 1, 1, 1, 2, 2, 300}).Draw(t, "weight")), // 0 is against the rules
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		l := newLBEndpoints()
		for range rapid.IntRange(1, 12).Draw(t, "builds") {
			l.begin()
			checkedAt := uint32(rapid.SampledFrom([]int{0, 9000}).Draw(t, "checked at"))
			a := &endpoint.ClusterLoadAssignment{ClusterName: "a"}
			for range rapid.IntRange(0, 3).Draw(t, "localities") {
				all := rapid.SliceOfN(one, 0, 4).Draw(t, "endpoints")
				made := l.of(all, checkedAt)
				for i, e := range all {
					if want := asEnvoyTakes(e, checkedAt); !proto.Equal(made[i], want) {
						t.Fatalf("%+v is\n%v, want\n%v", e, made[i], want)
					}
				}
				locality := &endpoint.LocalityLbEndpoints{
					Locality: &core.Locality{Region: rapid.SampledFrom([]string{"", "west"}).Draw(t, "region")}, LbEndpoints: made,
					LoadBalancingWeight: wrapperspb.UInt32(uint32(rapid.SampledFrom([]int{0, 1, 1, 1, 300}).Draw(t, "sum"))),
					Priority:            uint32(rapid.SampledFrom([]int{0, 0, 1, 1, 1000}).Draw(t, "priority")),
				}
				switch rapid.IntRange(0, 11).Draw(t, "more") {
				case 6:
					locality.Metadata = &core.Metadata{FilterMetadata: map[string]*structpb.Struct{"a": {}}}
				case 7:
					locality.LbConfig = &endpoint.LocalityLbEndpoints_LedsClusterLocalityConfig{LedsClusterLocalityConfig: &endpoint.LedsClusterLocalityConfig{
						LedsConfig: fromADS(), LedsCollectionName: "another's",
					}}
				case 8:
					locality.Proximity = wrapperspb.UInt32(3)
				case 9:
					locality.LbEndpoints = append(made[:len(made):len(made)], &endpoint.LbEndpoint{LoadBalancingWeight: wrapperspb.UInt32(9)}) // another's
				}
				a.Endpoints = append(a.GetEndpoints(), locality)
			}
			fault := a.ValidateAll()
			if err := newValidator(l).validate(a); (err == nil) != (fault == nil) {
				t.Fatalf("%v: %v, want %v", a, err, fault)
			}
			if fault != nil {
				continue // the build fails
			}
			l.end()
			want, err := cache.MarshalResource(a)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := newEncoder([]*lbEndpoints{newLBEndpoints(), l}).encode(a); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%v is encoded as\n%q, %v; want\n%q", a, got, err, want)
			}
			if len(l.byKey) != len(l.byLB) || len(l.byKey) > 2*max(l.used, 1) {
				t.Fatalf("%d and %d are remembered, and %d are in use", len(l.byKey), len(l.byLB), l.used)
			}
		}
	})
}

// asEnvoyTakes is an endpoint as Envoy takes it.
func asEnvoyTakes(e topology.Endpoint, checkedAt uint32) *endpoint.LbEndpoint {
	at := &endpoint.Endpoint{Hostname: strings.ToValidUTF8(e.Name, "\uFFFD"), Address: socketAddress(e.Address.Addr().String(), e.Address.Port())}
	if checkedAt != 0 {
		at.HealthCheckConfig = &endpoint.Endpoint_HealthCheckConfig{PortValue: checkedAt}
	}
	return &endpoint.LbEndpoint{HostIdentifier: &endpoint.LbEndpoint_Endpoint{Endpoint: at}, LoadBalancingWeight: wrapperspb.UInt32(e.Weight)}
}

// A change of one endpoint makes, proves and encodes no other.
func TestAChangeOfOneEndpointIsOfThatAlone(t *testing.T) {
	s := NewServer(Config{DefaultService: "server"})
	before := map[string][]string{"d1": {"tag:weight-1"}, "d2": {"tag:weight-2"}, "d3": {"tag:weight-3"}}
	set(t, s, topologyOf(before))
	was := s.published.services["server"].endpoints
	messages := make(map[*endpoint.LbEndpoint]bool)
	for lb, e := range was.byLB {
		if !e.proven || e.encoded == nil {
			t.Errorf("after a build: %+v", e)
		}
		messages[lb] = true
	}
	before["d2"] = []string{"tag:weight-7"}
	set(t, s, topologyOf(before))
	others := 0
	for lb, e := range s.published.services["server"].endpoints.byLB {
		if !messages[lb] {
			others++
			if e.GetLoadBalancingWeight().GetValue() != 7 {
				t.Errorf("made anew: %v", lb)
			}
		}
	}
	if len(messages) != 3 || others != 1 {
		t.Errorf("of %d endpoints, %d were made anew; want 1 of 3", len(messages), others)
	}
}
