package envoy

import (
	"slices"

	"github.com/tailxds/tailxds/internal/xds/resource"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/tailxds/tailxds/internal/policy"
	"github.com/tailxds/tailxds/internal/topology"
)

// resourceSet is resources of one type, by name.
type resourceSet = resource.Set

// serviceInput is all that the resources of one service depend on.
type serviceInput struct {
	service     topology.Service
	policy      policy.Service
	assignments []string // see [assignmentNames]
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

// names are all names under which a service's assignment is published.
func (in serviceInput) names() []string {
	if !in.policy.SpeaksGRPC() {
		return in.assignments
	}
	return append(slices.Clone(in.assignments), forGRPC(in.service.Name))
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

// forGRPC is the name of a service's cluster and assignment for gRPC clients.
func forGRPC(service string) string { return service + "/grpc" }
