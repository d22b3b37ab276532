// Package xds serves resources to Envoys and gRPC clients over ADS. It decides which
// streams are open, bounds what each peer may use, and follows what each stream has
// acknowledged. Resources arrive built, and who may connect arrives as addresses and a
// function: it knows neither topology nor policy.
package xds

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/tailxds/tailxds/internal/xds/cache"
	"github.com/tailxds/tailxds/internal/xds/resource"
)

// Config is what a [Server] needs. The zero value of each field works.
type Config struct {
	// Types are the types of resources that are served.
	Types []resource.Type
	// Identify asks the tailnet whose address a peer has. Nil accepts every
	// peer: for a server that listens on no tailnet.
	Identify IdentifyFunc
	// AllowTags are tags whose bearers may connect though they are no device
	// of the topology.
	AllowTags []string
	// OnChange is called when [Server.Connected] has changed; it must not block.
	OnChange func()
	// Services are registered beside xDS on the same port, with the same rules of
	// who may connect. They learn of the caller by [CallerOf].
	Services []func(grpc.ServiceRegistrar)
	// PeerLimits bound what one peer may use; the zero value is [DefaultPeerLimits].
	PeerLimits PeerLimits
	// Log gets connections, rejections and updates.
	Log *slog.Logger
}

// Server publishes resources to Envoys over ADS, delta and state-of-the-world.
type Server struct {
	config   Config
	log      *slog.Logger
	types    typeTable
	cache    *cache.Cache
	access   *access
	streams  *streams
	sessions *sessions
	quotas   *quotas
	refused  *refusals
	// connectionIdle is how long a connection may be open without a stream.
	connectionIdle time.Duration
}

// NewServer makes a server without resources. It refuses streams until the
// first [Server.Publish]: an Envoy that reconnects must not be sent the removal of all
// it has.
func NewServer(config Config) *Server {
	s := &Server{config: config, log: config.Log, types: newTypeTable(config.Types), connectionIdle: connectionIdle}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.access = newAccess(config.Identify, config.AllowTags)
	s.streams = newStreams(s.types, s.log)
	s.cache = cache.New(cache.Config{Types: config.Types, RegionsInUse: s.streams.byRegion, Log: s.log})
	s.refused = newRefusals(s.log)
	s.sessions = newSessions(config.OnChange)
	s.quotas = newQuotas(config.PeerLimits)
	return s
}

// Serve accepts Envoys on l until ctx ends. It closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := grpc.NewServer(
		// Envoys that vanish silently are noticed within 40 s, and those
		// that probe us more often than gRPC allows by default are let. A connection
		// without a stream is of no use to an Envoy, and ends.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second, MaxConnectionIdle: s.connectionIdle}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.ConnectionTimeout(handshakeTime),
		grpc.MaxConcurrentStreams(uint32(s.quotas.limits.Streams)),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.MaxRecvMsgSize(maxMessageBytes),
		// Each connection has this buffer as long as it lives, and what Envoys send is short.
		grpc.ReadBufferSize(readBufferBytes),
		// What is sent ahead of what is read has a bound that does not grow.
		grpc.StaticStreamWindowSize(windowBytes), grpc.StaticConnWindowSize(16*windowBytes),
		grpc.ForceServerCodecV2(newCodec()),
		grpc.Creds(newConnectionCredentials()),
		grpc.InTapHandle(s.tap),
		grpc.ChainStreamInterceptor(s.admit, s.filterStream),
	)
	discovery.RegisterAggregatedDiscoveryServiceServer(server, ads{cache: s.cache, streams: s.streams})
	for _, register := range s.config.Services {
		register(asStreams{server})
	}
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		s.reauthorizeOnRequest(ctx)
	}()
	defer func() { cancel(); <-watched }()
	bounded := boundedListener{Listener: l, quotas: s.quotas, closed: s.connectionRefused}
	if err := server.Serve(bounded); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve xDS on %s: %w", l.Addr(), err)
	}
	return nil
}

// SetAccess sets who may connect besides the bearers of [Config.AllowTags]: the devices
// with these addresses. Those that have a region are in it. Streams of devices that may
// connect no longer, or are in another region, end soon. No stream is open before the first
// call, unless every peer is accepted: see [Config.Identify].
func (s *Server) SetAccess(addresses map[netip.Addr]bool, regions map[netip.Addr]string) {
	if s.access.setAddresses(addresses, regions) {
		s.sessions.requestRecheck()
	}
}

// Publish publishes resources, and returns how many have changed. On an error none is
// published, and the last good ones stay. [Server.Rollout] follows what has changed.
func (s *Server) Publish(next resource.Snapshot) (changed int, err error) {
	return s.publish(next, s.streams.beginRollout)
}

// PublishUntracked publishes resources whose change [Server.Rollout] does not follow:
// those that follow what is measured.
func (s *Server) PublishUntracked(next resource.Snapshot) (changed int, err error) {
	return s.publish(next, s.streams.endRollout)
}

func (s *Server) publish(next resource.Snapshot, begin func()) (changed int, err error) {
	if changed, err = s.cache.Publish(next, begin); err != nil {
		return changed, err
	}
	s.access.setPublished()
	return changed, nil
}

// Streams lists the Envoys that are connected.
func (s *Server) Streams() []Stream { return s.streams.list() }

// Counts are what happened since the server started, by type and result.
func (s *Server) Counts() []Count { return s.streams.countList() }

// Envoys returns how many devices have a stream open on which they fetch configuration.
func (s *Server) Envoys() int { return s.sessions.devices() }

// Regions returns the regions that clients are served in, for which resources should
// be built before they are published.
func (s *Server) Regions() []string { return s.cache.Regions() }

// CrowdedRegions returns the regions whose Envoys get the assignments of callers of
// no region, since Envoys are in more regions than the control plane distinguishes.
func (s *Server) CrowdedRegions() []string { return s.cache.CrowdedRegions() }

// EnvoysByRegion is how many devices have Envoys connected from each region.
func (s *Server) EnvoysByRegion() map[string]int { return s.streams.byRegion() }
