package xds

import (
	"bytes"
	"testing"

	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"pgregory.net/rapid"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
)

// What is encoded once for several assignments is what each of them would be
// encoded as, whichever of them have what in common.
func TestAssignmentsAreEncodedAsIfAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		localities := func(n int) (all []*endpoint.LocalityLbEndpoints) {
			for i := range n {
				all = append(all, &endpoint.LocalityLbEndpoints{Locality: &core.Locality{Region: "r"}, Priority: uint32(i)})
			}
			return all
		}
		endpoints := [][]*endpoint.LocalityLbEndpoints{nil, localities(1), localities(2)}
		endpoints = append(endpoints, endpoints[2][:1], endpoints[2][1:], []*endpoint.LocalityLbEndpoints{endpoints[2][0], endpoints[1][0]})
		policies := []*endpoint.ClusterLoadAssignment_Policy{nil, {WeightedPriorityHealth: true}, {}}
		e, valid := newEncoder(nil), newValidator(nil)
		for range rapid.IntRange(1, 20).Draw(t, "assignments") {
			a := &endpoint.ClusterLoadAssignment{
				ClusterName: rapid.SampledFrom([]string{"a", "a/1", "b", "b/1", "c", "c/1", "\xff", ""}).Draw(t, "name"),
				Endpoints:   rapid.SampledFrom(endpoints).Draw(t, "endpoints"), Policy: rapid.SampledFrom(policies).Draw(t, "policy"),
			}
			if rapid.IntRange(0, 4).Draw(t, "named endpoints") == 4 {
				a.NamedEndpoints = map[string]*endpoint.Endpoint{"x": {Hostname: "x"}}
			}
			if rapid.IntRange(0, 9).Draw(t, "bad") == 9 {
				a.Endpoints = append(a.GetEndpoints()[:len(a.GetEndpoints()):len(a.GetEndpoints())], &endpoint.LocalityLbEndpoints{Priority: 1000})
			}
			want, wantErr := cache.MarshalResource(a)
			if got, err := e.encode(a); (err == nil) != (wantErr == nil) || (err == nil && !bytes.Equal(got, want)) {
				t.Fatalf("%v is encoded as %q, %v; want %q, %v", a, got, err, want, wantErr)
			}
			fault := a.ValidateAll()
			if err := valid.validate(a); (err == nil) != (fault == nil) {
				t.Fatalf("%v: %v, want %v", a, err, fault)
			}
			if fault != nil {
				return // and nothing is published
			}
		}
	})
}
