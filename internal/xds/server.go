package xds

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

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
	config  Config
	log     *slog.Logger
	types   typeTable
	caches  map[string]*collection // by type URL, but for types by region
	named   map[string]*collection // for clients that ask by name
	access  *access
	streams *streams
	guests  *guests
	quotas  *quotas
	refused *refusals
	prefix  string // of state-of-the-world versions
	// connectionIdle is how long a connection may be open without a stream.
	connectionIdle time.Duration

	views *views

	// mu is held while resources are published. Nothing that a peer sends waits for
	// it, but for the first request from a new region.
	mu        sync.Mutex
	published resource.Snapshot // nil before the first
}

// NewServer makes a server without resources. It refuses streams until the
// first [Server.Publish]: an Envoy that reconnects must not be told that all it
// knows is gone.
func NewServer(config Config) *Server {
	s := &Server{config: config, log: config.Log, types: newTypeTable(config.Types), connectionIdle: connectionIdle, caches: make(map[string]*collection), named: make(map[string]*collection)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.access = newAccess(config.Identify, config.AllowTags)
	s.streams = newStreams(s.types, s.log)
	s.refused = newRefusals(s.log)
	s.guests = newGuests(config.OnChange)
	s.quotas = newQuotas(config.PeerLimits)
	// State-of-the-world versions are counters. The prefix keeps those of
	// another process apart; delta versions are content hashes and need none.
	s.prefix = fmt.Sprintf("%x-", time.Now().UnixNano())
	for _, t := range config.Types {
		c := newCollection(t, "", s.prefix, nil)
		if t.ByRegion {
			s.views = newViews(c)
		} else {
			s.caches[t.URL] = c
		}
		if t.ByName {
			s.named[t.URL] = newCollection(t, "named", s.prefix, nil)
		}
	}
	return s
}

// Serve accepts Envoys on l until ctx ends. It closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	mux := byType{s.views.URL: seen{s}}
	for url, c := range s.caches {
		mux[url] = c
	}
	for url, c := range s.named {
		mux[url] = asked{all: mux[url], named: c}
	}
	server := grpc.NewServer(
		// Envoys that vanish without a word are noticed within 40 s, and those
		// that probe us more often than gRPC allows by default are let. A connection
		// without a stream is of no use to an Envoy, and ends.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second, MaxConnectionIdle: s.connectionIdle}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.ConnectionTimeout(handshakeTime),
		grpc.MaxConcurrentStreams(uint32(s.quotas.limits.Streams)),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.MaxRecvMsgSize(largestMessage),
		// What is sent ahead of what is read has a bound that does not grow.
		grpc.StaticStreamWindowSize(windowBytes), grpc.StaticConnWindowSize(16*windowBytes),
		grpc.ForceServerCodecV2(newCodec()),
		grpc.Creds(newEachConnection()),
		grpc.InTapHandle(s.tap),
		grpc.ChainStreamInterceptor(s.admit, s.door),
	)
	discovery.RegisterAggregatedDiscoveryServiceServer(server, ads{resources: mux, streams: s.streams})
	for _, register := range s.config.Services {
		register(asStreams{server})
	}
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		s.watchGuests(ctx)
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
	if s.access.allow(addresses, regions) {
		s.guests.again()
	}
}

// Publish publishes resources, and returns how many have changed. On an error none is
// published, and the last good ones stay. [Server.Rollout] follows what has changed.
func (s *Server) Publish(next resource.Snapshot) (changed int, err error) {
	return s.publish(next, s.streams.publishing)
}

// PublishUntracked publishes resources whose change [Server.Rollout] does not follow:
// those that follow what is measured.
func (s *Server) PublishUntracked(next resource.Snapshot) (changed int, err error) {
	return s.publish(next, s.streams.published)
}

// publish calls begin before anything that has changed is sent.
func (s *Server) publish(next resource.Snapshot, begin func()) (changed int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.views.drop(s.streams.byRegion(), time.Now())
	changes, err := s.changes(next)
	if err != nil {
		return 0, fmt.Errorf("nothing published, the last good resources stay: %w", err)
	}
	for _, c := range changes {
		changed += len(c.changed) + len(c.removed)
	}
	if changed > 0 {
		begin()
	}
	if err := apply(changes); err != nil {
		return 0, err
	}
	s.published = next
	s.access.open()
	return changed, nil
}

// changes returns one for each collection, in the order in which additions reach an
// Envoy.
func (s *Server) changes(next resource.Snapshot) ([]change, error) {
	var all []change
	add := func(c *collection, set resource.Set) error {
		diff, err := c.compare(set)
		all = append(all, diff)
		return err
	}
	for _, t := range s.types.types {
		if !t.ByRegion {
			if err := add(s.caches[t.URL], next.All(t.URL)); err != nil {
				return nil, err
			}
		} else {
			for region, c := range s.views.all() {
				set := next.All(t.URL)
				if region != "" {
					var err error
					if set, err = next.InRegion(t.URL, region); err != nil {
						return nil, err
					}
				}
				if err := add(c, set); err != nil {
					return nil, err
				}
			}
		}
		if t.ByName {
			if err := add(s.named[t.URL], next.Named(t.URL)); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// apply puts changes into the collections: first what is new or changed, then
// removals in reverse, so that no Envoy is told of a route to a cluster that it does
// not have.
func apply(changes []change) error {
	for _, c := range changes {
		if len(c.changed) > 0 {
			if err := c.into.update(c.changed, nil); err != nil {
				return fmt.Errorf("publish %s: %w", c.into.Name, err)
			}
		}
	}
	for _, c := range slices.Backward(changes) {
		if len(c.removed) > 0 {
			if err := c.into.update(nil, c.removed); err != nil {
				return fmt.Errorf("withdraw %s: %w", c.into.Name, err)
			}
		}
	}
	return nil
}

// Streams lists the Envoys that are connected.
func (s *Server) Streams() []Stream { return s.streams.list() }

// Counts are what happened since the server started, by type and result.
func (s *Server) Counts() []Count { return s.streams.counted() }

// Envoys returns how many devices have a stream open on which they fetch configuration.
func (s *Server) Envoys() int { return s.guests.devices() }

// Regions returns the regions that clients are served in, for which resources should
// be built before they are published.
func (s *Server) Regions() []string { return s.views.regions() }

// EnvoysByRegion is how many devices have Envoys connected from each region.
func (s *Server) EnvoysByRegion() map[string]int { return s.streams.byRegion() }
