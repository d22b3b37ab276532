// Package envoy makes resources for Envoys and gRPC clients of a topology and a
// policy, and the bootstrap of an Envoy. It is pure, and the only package that knows
// both the policy and Envoy's messages.
//
// resources.go has the table of types, with one builder each, and build.go puts
// together what they make.
package envoy

import (
	"google.golang.org/protobuf/proto"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

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
