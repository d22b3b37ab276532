// Package envoy makes resources for Envoys and gRPC clients of a topology and a
// policy, and the bootstrap of an Envoy. It is pure, and the only package that knows
// both the policy and Envoy's messages.
//
// resources.go has the table of types, with one builder each, and build.go puts
// together what they make.
package envoy

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/tailxds/tailxds/internal/policy"
	"github.com/tailxds/tailxds/internal/xds/resource"
)

// resourceType is one row of the table of what is served. Either buildService or
// buildShared is set.
type resourceType struct {
	resource.Type
	// buildService builds the resources of one service; it is called again only
	// when the service's policy changed or, if it dependsOnEndpoints, its endpoints.
	buildService       func(serviceInput) ([]proto.Message, error)
	dependsOnEndpoints bool
	// buildShared builds the resources that span all services.
	buildShared func(sharedInput) ([]proto.Message, error)
	// buildNamed builds resources for clients that ask for them by name, and not for
	// those that ask for all. It goes with [resource.Type.ByName].
	buildNamed func(sharedInput) ([]proto.Message, error)
}

// sharedInput is all on which resources depend that span services: which devices
// serve them is no part of it. They are built again only when it changes.
type sharedInput struct {
	services       []string // sorted
	policy         policy.Policy
	defaultService string
}

// known returns the services as a set.
func (in sharedInput) known() map[string]bool {
	all := make(map[string]bool, len(in.services))
	for _, name := range in.services {
		all[name] = true
	}
	return all
}

// resourceTypes is the table of what is served: the one place where a type is added.
// It is in the order of [Types].
func resourceTypes() []resourceType {
	return []resourceType{
		{Type: resource.Type{Name: "endpoints", URL: resourcev3.EndpointType, ByRegion: true}, buildService: buildEndpoints, dependsOnEndpoints: true},
		{Type: resource.Type{Name: "clusters", URL: resourcev3.ClusterType, ByName: true}, buildService: buildClusters, buildNamed: grpcClusters},
		{Type: resource.Type{Name: "extensions", URL: resourcev3.ExtensionConfigType}, buildShared: buildExtensions},
		{Type: resource.Type{Name: "routes", URL: resourcev3.RouteType}, buildShared: buildRoutes},
		{Type: resource.Type{Name: "listeners", URL: resourcev3.ListenerType, ByName: true}, buildShared: buildListeners, buildNamed: grpcListeners},
	}
}

// Types returns the types of resources that are built, in the order in which
// additions reach an Envoy.
func Types() []resource.Type {
	var types []resource.Type
	for _, row := range resourceTypes() {
		types = append(types, row.Type)
	}
	return types
}

// buildEndpoints are the service's assignment for callers of no region.
func buildEndpoints(in serviceInput) ([]proto.Message, error) { return endpointsFor(in, "") }

// endpointsFor are the service's assignment as the callers of a region get it,
// once under each of its names, and that of gRPC clients. Its locality weights are the sums of their
// endpoints', so that a weight means the same in every region.
func endpointsFor(in serviceInput, region string) ([]proto.Message, error) {
	var localities []*endpoint.LocalityLbEndpoints
	for _, l := range seenFrom(in.service, in.policy, region).Localities {
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

func socketAddress(address string, port uint16) *core.Address {
	return &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{
		Address:       address,
		PortSpecifier: &core.SocketAddress_PortValue{PortValue: uint32(port)},
	}}}
}

func fromADS() *core.ConfigSource {
	return &core.ConfigSource{
		ResourceApiVersion:    core.ApiVersion_V3,
		ConfigSourceSpecifier: &core.ConfigSource_Ads{Ads: &core.AggregatedConfigSource{}},
	}
}
