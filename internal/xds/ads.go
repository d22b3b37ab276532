package xds

import (
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"
)

// ads serves each stream by a server of go-control-plane of its own. Such a server
// ends its streams when its context ends, and can end none alone; so the context
// of each is that of its stream, which [Server.admit] can end.
type ads struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	resources cache.ConfigWatcher
	streams   *streams
}

// StreamAggregatedResources implements the state-of-the-world protocol.
func (a ads) StreamAggregatedResources(s discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	server := sotw.NewServer(s.Context(), a.resources, a.streams.witness(false), sotw.WithOrderedADS())
	return server.StreamHandler(s, resource.AnyType)
}

// DeltaAggregatedResources implements the delta protocol.
func (a ads) DeltaAggregatedResources(s discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	server := delta.NewServer(s.Context(), a.resources, a.streams.witness(true))
	return server.DeltaStreamHandler(s, resource.AnyType)
}
