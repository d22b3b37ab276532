// Package xds serves a topology to Envoys.
//
// build.go and the builders that it calls are pure: a [topology.Topology] and a
// [policy.Policy] become xDS resources, by one builder a type in one table. server.go
// holds the caches, the ADS streams and who may open one.
package xds

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/tailxds/tailxds/internal/policy"
)

// resourceType is one row of the table of what is served. Either perService or
// whole is set.
type resourceType struct {
	// Name is the field of the rendered document.
	Name string
	// URL is the xDS type URL.
	URL string
	// perService builds the resources of one service; it is called again only
	// when its policy changed or, where they are ofServing, who serves it.
	perService func(serviceInput) ([]proto.Message, error)
	ofServing  bool
	// whole builds the resources that span all services.
	whole func(frame) ([]proto.Message, error)
	// named builds resources for those who ask for them by name, and not for
	// those who ask for all.
	named func(frame) ([]proto.Message, error)
}

// frame is all on which resources depend that span services: who serves them is
// no part of it. They are built again only when it changes.
type frame struct {
	services       []string // sorted
	policy         policy.Policy
	defaultService string
}

// known are the services as a set.
func (f frame) known() map[string]bool {
	all := make(map[string]bool, len(f.services))
	for _, name := range f.services {
		all[name] = true
	}
	return all
}

// resourceTypes is the table, in the order in which additions reach an Envoy:
// what is referred to goes before what refers to it. Removals go in reverse.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-docs/xds_protocol#eventual-consistency-considerations
func resourceTypes() []resourceType {
	return []resourceType{
		endpoints:  {Name: "endpoints", URL: resource.EndpointType, perService: buildEndpoints, ofServing: true},
		clusters:   {Name: "clusters", URL: resource.ClusterType, perService: buildClusters, named: grpcClusters},
		extensions: {Name: "extensions", URL: resource.ExtensionConfigType, whole: buildExtensions},
		routes:     {Name: "routes", URL: resource.RouteType, whole: buildRoutes},
		listeners:  {Name: "listeners", URL: resource.ListenerType, whole: buildListeners, named: grpcListeners},
	}
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
