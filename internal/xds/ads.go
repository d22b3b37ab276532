package xds

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	gcp "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"

	"github.com/tailxds/tailxds/internal/xds/cache"
)

// ads serves each stream by a server of go-control-plane of its own. Such a server
// ends its streams when its context ends, and can end none alone; so the context
// of each is that of its stream, which [Server.admit] can end.
type ads struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	cache   *cache.Cache
	streams *streams
}

// StreamAggregatedResources implements the state-of-the-world protocol.
func (a ads) StreamAggregatedResources(s discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	names := countNames(s.Context(), a.cache.NewStream())
	defer names.end()
	server := sotw.NewServer(s.Context(), names, a.streams.newCallbacks(false), sotw.WithOrderedADS())
	return server.StreamHandler(s, resource.AnyType)
}

// DeltaAggregatedResources implements the delta protocol.
func (a ads) DeltaAggregatedResources(s discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	names := countNames(s.Context(), a.cache.NewStream())
	defer names.end()
	server := delta.NewServer(s.Context(), names, a.streams.newCallbacks(true))
	return server.DeltaStreamHandler(s, resource.AnyType)
}

// countedNames counts the names that one stream is subscribed to for its peer. Its caches
// keep each for as long as the stream lasts.
type countedNames struct {
	gcp.ConfigWatcher
	quota  *quota
	byType map[string]int
}

func countNames(ctx context.Context, resources gcp.ConfigWatcher) *countedNames {
	who, _ := ctx.Value(identityKey{}).(peerInfo)
	return &countedNames{resources, who.connection.peerQuota(), make(map[string]int)}
}

// CreateWatch implements [gcp.ConfigWatcher].
func (n *countedNames) CreateWatch(r *gcp.Request, sub gcp.Subscription, to chan gcp.Response) (func(), error) {
	if err := n.count(r.GetTypeUrl(), sub); err != nil {
		return nil, err
	}
	return n.ConfigWatcher.CreateWatch(r, sub, to)
}

// CreateDeltaWatch implements [gcp.ConfigWatcher].
func (n *countedNames) CreateDeltaWatch(r *gcp.DeltaRequest, sub gcp.Subscription, to chan gcp.DeltaResponse) (func(), error) {
	if err := n.count(r.GetTypeUrl(), sub); err != nil {
		return nil, err
	}
	return n.ConfigWatcher.CreateDeltaWatch(r, sub, to)
}

func (n *countedNames) count(url string, sub gcp.Subscription) error {
	before, now := n.byType[url], len(sub.SubscribedResources())
	if now > maxNames {
		return status.Errorf(codes.InvalidArgument, "%d resource names of one type in one stream are more than %d", now, maxNames)
	}
	n.byType[url] = now
	if err := n.quota.subscribe(n.byType[url] - before); err != nil {
		return status.Error(codes.ResourceExhausted, err.Error())
	}
	return nil
}

// end gives the names back.
func (n *countedNames) end() {
	for url, count := range n.byType {
		n.byType[url] = 0
		_ = n.quota.subscribe(-count) // fewer are never too many
	}
}
