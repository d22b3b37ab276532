package xds

import (
	"context"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"

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

// wired are no credentials: the tailnet encrypts, and tells who a peer is. They
// keep each peer's connection at hand, so that it can be broken off.
type wired struct {
	credentials.TransportCredentials
}

func newWired() wired { return wired{insecure.NewCredentials()} }

// ServerHandshake implements [credentials.TransportCredentials].
func (w wired) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return conn, wire{conn: conn, CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}}, nil
}

// Clone implements [credentials.TransportCredentials].
func (w wired) Clone() credentials.TransportCredentials { return w }

// wire is what a peer's connection says of its security.
type wire struct {
	credentials.CommonAuthInfo
	conn net.Conn
}

// AuthType implements [credentials.AuthInfo].
func (wire) AuthType() string { return "tailnet" }

// breakOff closes the connection of a call's peer.
func breakOff(ctx context.Context) {
	if p, ok := peer.FromContext(ctx); ok {
		if w, ok := p.AuthInfo.(wire); ok {
			_ = w.conn.Close() // whoever reads or writes learns of it
		}
	}
}
