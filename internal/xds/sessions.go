package xds

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A peer that may open a stream may not keep it for ever: the tailnet's filter lets open
// connections live on when a device loses its tags. So every open stream is
// authorized again when the devices that may connect, or the netmap, change.
const (
	// recheckSpacing is the shortest time between two looks at all streams.
	recheckSpacing = time.Second
	// unknownGrace is how long the tailnet must not know a peer before its stream
	// ends: a netmap that is being replaced may lack it for a moment.
	unknownGrace = 5 * time.Second
	// maxWhoIs bounds the questions to the tailnet that are under way.
	maxWhoIs = 8
	// writeGrace is how long a write may go on in a stream that is revoked.
	writeGrace = 2 * time.Second
)

// session is an open stream whose peer was admitted.
type session struct {
	peerInfo
	ads             bool // it fetches configuration
	cancel          context.CancelCauseFunc
	closeConnection func()
	ended           atomic.Bool // its handler has returned
	unknownSince    time.Time   // since when the tailnet does not know the peer
}

// sessions are the open streams of all services.
type sessions struct {
	changed func() // an ADS stream came or went
	recheck chan struct{}

	mu                 sync.Mutex
	open               map[*session]bool
	rounds             int                 // of reauthorization so far
	connectedAddresses map[netip.Addr]bool // see connected; nil until it is asked for
}

func newSessions(changed func()) *sessions {
	if changed == nil {
		changed = func() {}
	}
	return &sessions{changed: changed, recheck: make(chan struct{}, 1), open: make(map[*session]bool)}
}

// add adds a stream whose peer was admitted in a round of reauthorization.
func (g *sessions) add(one *session, round int) {
	g.mu.Lock()
	g.open[one], g.connectedAddresses = true, nil
	missed := g.rounds != round
	g.mu.Unlock()
	if missed { // a later round, for which this stream was not open yet, and was admitted by what was true before
		g.requestRecheck()
	}
	if one.ads {
		g.changed()
	}
}

// round returns the number of the last round of reauthorization.
func (g *sessions) round() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.rounds
}

// remove removes a stream, if it is there.
func (g *sessions) remove(one *session) {
	g.mu.Lock()
	there := g.open[one]
	delete(g.open, one)
	g.connectedAddresses = nil
	g.mu.Unlock()
	if there && one.ads {
		g.changed()
	}
}

// beginRound begins a round of reauthorization, and returns the open streams.
func (g *sessions) beginRound() []*session {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rounds++
	return slices.Collect(maps.Keys(g.open))
}

// updateIdentity sets what the tailnet says now of a peer that may stay: its addresses
// may be others than when it connected.
func (g *sessions) updateIdentity(one *session, now Identity) {
	g.mu.Lock()
	was := one.Addresses
	one.Identity, g.connectedAddresses = now, nil
	g.mu.Unlock()
	if one.ads && !slices.Equal(was, now.Addresses) {
		g.changed()
	}
}

// connected returns the addresses of the devices that fetch configuration now. The map
// is shared, and must not be changed.
func (g *sessions) connected() map[netip.Addr]bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.connectedAddresses != nil {
		return g.connectedAddresses
	}
	g.connectedAddresses = make(map[netip.Addr]bool)
	for one := range g.open {
		if !one.ads {
			continue
		}
		g.connectedAddresses[one.address.Addr()] = true
		for _, a := range one.Addresses {
			g.connectedAddresses[a] = true
		}
	}
	return g.connectedAddresses
}

// devices returns how many devices have a stream open on which configuration is
// fetched. One device may open many streams, and each may claim to be another
// node: what depends on the number of Envoys must not grow with those.
func (g *sessions) devices() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	distinct := make(map[netip.Addr]bool)
	for one := range g.open {
		if one.ads {
			distinct[one.device()] = true
		}
	}
	return len(distinct)
}

// requestRecheck asks for a round of reauthorization. It never blocks.
func (g *sessions) requestRecheck() {
	select {
	case g.recheck <- struct{}{}:
	default: // one is due already
	}
}

// Connected returns the addresses of all devices that have a stream open on which they
// fetch configuration: they are online, whatever a provider says. The map is shared with
// other callers and must not be changed.
func (s *Server) Connected() map[netip.Addr]bool { return s.sessions.connected() }

// Reauthorize checks again, soon and in the background, whether the peer of each open
// stream may connect: the netmap may have changed. See [Config.Identify].
func (s *Server) Reauthorize() { s.sessions.requestRecheck() }

// reauthorizeOnRequest runs rounds of reauthorization whenever one is requested, until
// ctx ends.
func (s *Server) reauthorizeOnRequest(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.sessions.recheck:
		}
		s.reauthorizeAll(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(recheckSpacing):
		}
	}
}

func (s *Server) reauthorizeAll(ctx context.Context) {
	var group errgroup.Group
	group.SetLimit(maxWhoIs)
	for _, one := range s.sessions.beginRound() {
		group.Go(func() error {
			s.reauthorize(ctx, one)
			return nil
		})
	}
	_ = group.Wait() // nothing fails
}

// reauthorize ends a stream whose peer may connect no longer. Only a definite answer
// ends it, and not a tailnet that can't say.
func (s *Server) reauthorize(ctx context.Context, one *session) {
	now, err := s.access.check(ctx, one.address)
	if err == nil {
		if region, known := s.access.region(now); known && region != one.region {
			err = status.Errorf(codes.Unavailable, "the device's region is %q now and was %q: connect again", region, one.region)
			s.sessions.remove(one)
			s.log.Info("stream ended: its device has another region", "device", one.Name, "region", region, "was", one.region)
			one.revoke(err)
			return
		}
	}
	if err == nil {
		s.sessions.updateIdentity(one, now)
	}
	if status.Code(err) != codes.PermissionDenied {
		one.unknownSince = time.Time{}
		return
	}
	if isUnknown(err) {
		now := time.Now()
		if one.unknownSince.IsZero() {
			one.unknownSince = now
			time.AfterFunc(unknownGrace, s.sessions.requestRecheck)
		}
		if now.Sub(one.unknownSince) < unknownGrace {
			return
		}
	}
	s.sessions.remove(one)
	s.log.Warn("stream ended: its peer may connect no longer", "device", one.Name, "peer", one.address.String(), "reason", status.Convert(err).Message())
	s.streams.count("", "revoked")
	one.revoke(err)
}

// admit is a gRPC interceptor: no stream gets further without an identity, and
// none goes on when its peer is revoked.
func (s *Server) admit(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	round := s.sessions.round()
	peer, err := s.identify(stream.Context())
	if err != nil {
		return err
	}
	if !info.IsServerStream { // a call that is over soon: see [asStreams]
		return handler(srv, admitted{ServerStream: stream, ctx: context.WithValue(stream.Context(), identityKey{}, peer), quota: peer.connection.peerQuota()})
	}
	ctx, end := context.WithCancelCause(context.WithValue(stream.Context(), identityKey{}, peer))
	defer end(nil)
	g := &session{peerInfo: peer, ads: strings.HasPrefix(info.FullMethod, "/envoy.service.discovery.v3."), cancel: end, closeConnection: connectionOf(stream.Context()).close}
	s.sessions.add(g, round)
	defer s.sessions.remove(g)

	err = handler(srv, admitted{stream, ctx, g.ads, peer.connection.peerQuota()})
	g.ended.Store(true)
	if _, revoked := status.FromError(context.Cause(ctx)); revoked && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// revoke ends a stream. Its handler, which waits for requests and for changes, waits
// for the end of its context as well; but while it writes, it waits for its peer
// alone, and what ends that is the end of the connection.
func (g *session) revoke(why error) {
	g.cancel(why)
	time.AfterFunc(writeGrace, func() {
		if !g.ended.Load() {
			g.closeConnection()
		}
	})
}

// admitted is a stream whose peer is known, and whose context ends when that is
// revoked.
type admitted struct {
	grpc.ServerStream
	ctx   context.Context //nolint:containedctx // this is how gRPC hands a value to a stream's handler
	ads   bool
	quota *quota // of the peer
}

// Context carries the identity, and ends when the peer is revoked.
func (a admitted) Context() context.Context { return a.ctx }

// SendMsg sends nothing any more to a peer that is revoked.
func (a admitted) SendMsg(m any) error {
	if a.ctx.Err() != nil {
		return context.Cause(a.ctx)
	}
	return a.ServerStream.SendMsg(m)
}
