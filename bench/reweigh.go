package main

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// reweigh gives the first endpoint of s0 another weight, in place of the
// assignment that had the old one.
func (p *snapshots) reweigh(weight int) error {
	for i, r := range p.resources[resource.EndpointType] {
		old, ok := r.(*endpoint.ClusterLoadAssignment)
		if !ok || old.GetClusterName() != "s0" {
			continue
		}
		next := proto.CloneOf(old)
		locality := next.GetEndpoints()[0]
		locality.GetLbEndpoints()[0].LoadBalancingWeight = wrapperspb.UInt32(uint32(weight))
		locality.LoadBalancingWeight = wrapperspb.UInt32(uint32(p.Endpoints - 1 + weight))
		p.resources[resource.EndpointType][i] = next
		return nil
	}
	return fmt.Errorf("there is no assignment of s0")
}
