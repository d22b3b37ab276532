package xds

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/proto"

	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/tailxds/tailxds/internal/policy"
	"github.com/tailxds/tailxds/internal/topology"
)

// Config is what a [Server] needs. The zero value of each field works.
type Config struct {
	// DefaultService takes the requests that no other service claims.
	DefaultService string
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

// Server publishes a topology to Envoys over ADS, delta and state-of-the-world.
type Server struct {
	config  Config
	log     *slog.Logger
	caches  map[string]*collection // by type URL, but for assignments
	named   map[string]*collection // the same, for those who ask by name
	access  *access
	streams *streams
	guests  *guests
	quotas  *quotas
	refused *refusals
	prefix  string // of state-of-the-world versions
	// connectionIdle is how long a connection may be open without a stream.
	connectionIdle time.Duration

	views  *views
	checks atomic.Pointer[Checks] // of the last Set

	// mu is held while resources are built and published. Nothing that a peer sends
	// waits for it, but for the first request from a new region.
	mu        sync.Mutex
	published *resources        // nil before the first Set
	topology  topology.Topology // of the last Set
	present   int               // devices of it
	callers   *endpoint.ClusterLoadAssignment
}

// NewServer makes a server without resources. It refuses streams until the
// first [Server.Publish]: an Envoy that reconnects must not be told that all it
// knows is gone.
func NewServer(config Config) *Server {
	s := &Server{config: config, log: config.Log, connectionIdle: connectionIdle, caches: make(map[string]*collection), named: make(map[string]*collection)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.access = newAccess(config.Identify, config.AllowTags)
	s.streams = newStreams(s.log)
	s.callers = &endpoint.ClusterLoadAssignment{ClusterName: LocalCluster}
	s.refused = newRefusals(s.log)
	s.guests = newGuests(config.OnChange)
	s.quotas = newQuotas(config.PeerLimits)
	// State-of-the-world versions are counters. The prefix keeps those of
	// another process apart; delta versions are content hashes and need none.
	s.prefix = fmt.Sprintf("%x-", time.Now().UnixNano())
	for _, row := range resourceTypes() {
		c := newCollection(row.URL, "", s.prefix, nil)
		if row.URL == resource.EndpointType {
			s.views = newViews(c)
		} else {
			s.caches[row.URL] = c
		}
		if row.named != nil {
			s.named[row.URL] = newCollection(row.URL, "named", s.prefix, nil)
		}
	}
	return s
}

// Serve accepts Envoys on l until ctx ends. It closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	mux := byType{resource.EndpointType: seen{s}}
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

// Publish publishes a topology. Every resource is built and validated before any
// is published; on an error the last good ones stay.
func (s *Server) Publish(t topology.Topology, p policy.Policy) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	same := s.published != nil && t.SameDevices(s.topology)
	present := s.present
	if !same {
		present = len(t.Present())
	}
	s.views.drop(s.streams.byRegion(), time.Now())
	was := s.Checks()
	checks := was.next(present, s.guests.devices())
	next, err := build(t, p.CheckedEvery(checks.Every), s.config.DefaultService, s.published)
	if err != nil {
		return fmt.Errorf("nothing published, the last good resources stay: %w", err)
	}
	next.ByType[resource.EndpointType][LocalCluster] = s.callers
	changes, err := s.publish(next)
	if err != nil {
		return err
	}
	s.published, s.topology, s.present = next, t, present
	if checks.Every != was.Every && was.Every != 0 {
		s.log.Info("another interval of health checks, where the policy leaves it open", "interval", checks.Every, "was", was.Every, "envoys", checks.Envoys)
	}
	s.checks.Store(&checks)
	if !same && s.access.allow(t.Addresses(), t.Regions()) {
		s.guests.again()
	}
	s.access.open()
	if changes > 0 {
		s.log.Info("published", "services", len(t.Services), "devices", present, "resources_changed", changes)
	}
	return nil
}

// change is what is to be put into one collection.
type change struct {
	name       string // of the type
	into       *collection
	last, next resourceSet
	changed    map[string]packed // once they are packed
}

// pack encodes what changed. What can't be written to the wire, such as text that
// is no UTF-8, would fail every stream that asks for its type.
func (c *change) pack() error {
	c.changed = make(map[string]packed)
	for name, r := range changedSince(c.last, c.next) {
		p := c.into.pack(name, r)
		if _, err := p(); err != nil {
			return err // says what can't be encoded
		}
		c.changed[name] = p
	}
	return nil
}

// changes are one for each collection, in the order in which additions reach an Envoy.
func (s *Server) changes(next *resources) ([]change, error) {
	last := s.published
	if last == nil {
		last = &resources{}
	}
	var all []change
	for _, row := range resourceTypes() {
		if row.URL != resource.EndpointType {
			all = append(all, change{name: row.Name, into: s.caches[row.URL], last: last.ByType[row.URL], next: next.ByType[row.URL]})
			if c, ok := s.named[row.URL]; ok {
				all = append(all, change{name: row.Name, into: c, last: last.named[row.URL], next: next.named[row.URL]})
			}
			continue
		}
		for region, c := range s.views.all() {
			was := last.ByType[row.URL]
			if region != "" {
				was = last.views[region]
			}
			now, err := next.assignments(region, last)
			if err != nil {
				return nil, err
			}
			all = append(all, change{name: row.Name, into: c, last: was, next: now})
		}
	}
	return all, nil
}

// publish puts the difference into the collections: first what is new or changed,
// then removals in reverse, so that no Envoy is told of a route to a cluster
// that it does not have.
func (s *Server) publish(next *resources) (changes int, err error) {
	all, err := s.changes(next)
	if err != nil {
		return 0, err
	}
	for i := range all {
		if err := all[i].pack(); err != nil {
			return 0, fmt.Errorf("nothing published, the last good resources stay: %w", err)
		}
	}
	begun := false
	begin := func() {
		if !begun {
			begun = true
			s.streams.publishing()
		}
	}
	for _, c := range all {
		if len(c.changed) > 0 {
			begin()
			changes += len(c.changed)
			if err := c.into.update(c.changed, nil); err != nil {
				return changes, fmt.Errorf("publish %s: %w", c.name, err)
			}
		}
	}
	for _, c := range slices.Backward(all) {
		if removed := removedSince(c.last, c.next); len(removed) > 0 {
			begin()
			changes += len(removed)
			if err := c.into.update(nil, removed); err != nil {
				return changes, fmt.Errorf("withdraw %s: %w", c.name, err)
			}
		}
	}
	return changes, nil
}

// Streams lists the Envoys that are connected.
func (s *Server) Streams() []Stream { return s.streams.list() }

// Counts are what happened since the server started, by type and result.
func (s *Server) Counts() []Count { return s.streams.counted() }

// Checks are those of the last [Server.Publish].
func (s *Server) Checks() Checks {
	if last := s.checks.Load(); last != nil {
		return *last
	}
	return Checks{}
}

// PublishLocalCluster publishes how the world's requests are spread over the regions
// where they enter, in any unit. Envoys whose services are balanced to the
// nearest follow it at once.
func (s *Server) PublishLocalCluster(entries map[string]uint32) error {
	next, err := buildCallers(entries)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if proto.Equal(next, s.callers) {
		return nil
	}
	s.callers = next
	if s.published == nil {
		return nil // the first Set takes it along
	}
	s.streams.published()
	s.published.ByType[resource.EndpointType][LocalCluster] = next
	for region, c := range s.views.all() {
		if set, ok := s.published.views[region]; ok {
			set[LocalCluster] = next
		}
		if err := c.update(map[string]packed{LocalCluster: c.pack(LocalCluster, next)}, nil); err != nil {
			return fmt.Errorf("publish the entries of regions: %w", err)
		}
	}
	return nil
}

// EnvoysByRegion is how many devices have Envoys connected from each region.
func (s *Server) EnvoysByRegion() map[string]int { return s.streams.byRegion() }
