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

// Who may open a stream may not keep it for ever: the tailnet's filter lets open
// connections live on when a device loses its tags. So every open stream is
// judged again when the topology or the netmap changes.
const (
	// recheckSpacing is the shortest time between two looks at all streams.
	recheckSpacing = time.Second
	// unknownFor is how long the tailnet must not know a peer before its stream
	// ends: a netmap that is being replaced may lack it for a moment.
	unknownFor = 5 * time.Second
	// whoIsAtOnce bounds the questions to the tailnet that are under way.
	whoIsAtOnce = 8
	// endWithin is how long a write may go on in a stream that is revoked.
	endWithin = 2 * time.Second
)

// guest is an open stream whose peer was admitted.
type guest struct {
	peerInfo
	ads     bool // it fetches configuration
	end     context.CancelCauseFunc
	hangUp  func()
	over    atomic.Bool // its handler has returned
	unknown time.Time   // since when the tailnet does not know the peer
}

// guests are the open streams of all services.
type guests struct {
	changed func() // an ADS stream came or went
	recheck chan struct{}

	mu    sync.Mutex
	open  map[*guest]bool
	looks int                 // how often all were judged
	at    map[netip.Addr]bool // see connected; nil if it is to be made anew
}

func newGuests(changed func()) *guests {
	if changed == nil {
		changed = func() {}
	}
	return &guests{changed: changed, recheck: make(chan struct{}, 1), open: make(map[*guest]bool)}
}

// enter notes a stream whose peer was admitted after so many looks at all.
func (g *guests) enter(who *guest, looks int) {
	g.mu.Lock()
	g.open[who], g.at = true, nil
	missed := g.looks != looks
	g.mu.Unlock()
	if missed { // that look was not at this one, which may have been admitted by what was true before
		g.again()
	}
	if who.ads {
		g.changed()
	}
}

func (g *guests) looked() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.looks
}

// leave forgets a stream; it may have been forgotten before.
func (g *guests) leave(who *guest) {
	g.mu.Lock()
	there := g.open[who]
	delete(g.open, who)
	g.at = nil
	g.mu.Unlock()
	if there && who.ads {
		g.changed()
	}
}

// all are the open streams, for a look at them.
func (g *guests) all() []*guest {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.looks++
	return slices.Collect(maps.Keys(g.open))
}

// known takes what the tailnet says now of a peer that may stay: its addresses
// may be others than when it came.
func (g *guests) known(who *guest, now Identity) {
	g.mu.Lock()
	was := who.Addresses
	who.Identity, g.at = now, nil
	g.mu.Unlock()
	if who.ads && !slices.Equal(was, now.Addresses) {
		g.changed()
	}
}

// connected are the addresses of the devices that fetch configuration now. It is
// made once for as long as they are the same, and nobody may change it.
func (g *guests) connected() map[netip.Addr]bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.at != nil {
		return g.at
	}
	g.at = make(map[netip.Addr]bool)
	for who := range g.open {
		if !who.ads {
			continue
		}
		g.at[who.address.Addr()] = true
		for _, a := range who.Addresses {
			g.at[a] = true
		}
	}
	return g.at
}

// devices is how many devices have a stream open on which configuration is
// fetched. One device may open many streams, and each may claim to be another
// node: what depends on the number of Envoys must not grow with those.
func (g *guests) devices() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	distinct := make(map[netip.Addr]bool)
	for who := range g.open {
		if who.ads {
			distinct[who.device()] = true
		}
	}
	return len(distinct)
}

// again asks for a look at all streams. It never blocks.
func (g *guests) again() {
	select {
	case g.recheck <- struct{}{}:
	default: // one is due already
	}
}

// Connected are the addresses of all devices that have a stream open on which
// they fetch configuration: they are there, whatever anybody else says. It is shared
// with other callers, so nobody may change it.
func (s *Server) Connected() map[netip.Addr]bool { return s.guests.connected() }

// Reauthorize has every open stream judged again, soon and in the background: the
// netmap may have changed. See [Config.Identify].
func (s *Server) Reauthorize() { s.guests.again() }

// watchGuests judges the open streams again whenever that is asked for, until
// ctx ends.
func (s *Server) watchGuests(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.guests.recheck:
		}
		s.judgeGuests(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(recheckSpacing):
		}
	}
}

func (s *Server) judgeGuests(ctx context.Context) {
	var group errgroup.Group
	group.SetLimit(whoIsAtOnce)
	for _, who := range s.guests.all() {
		group.Go(func() error {
			s.judgeGuest(ctx, who)
			return nil
		})
	}
	_ = group.Wait() // nothing fails
}

// judgeGuest ends a stream whose peer may be here no longer. Only a definite
// answer ends it: a tailnet that can't tell is no reason.
func (s *Server) judgeGuest(ctx context.Context, who *guest) {
	now, err := s.access.check(ctx, who.address)
	if err == nil {
		if region, known := s.access.region(now); known && region != who.region {
			err = status.Errorf(codes.Unavailable, "the device's region is %q now and was %q: connect again", region, who.region)
			s.guests.leave(who)
			s.log.Info("stream ended: its device has another region", "device", who.Name, "region", region, "was", who.region)
			who.revoke(err)
			return
		}
	}
	if err == nil {
		s.guests.known(who, now)
	}
	if status.Code(err) != codes.PermissionDenied {
		who.unknown = time.Time{}
		return
	}
	if isUnknown(err) {
		now := time.Now()
		if who.unknown.IsZero() {
			who.unknown = now
			time.AfterFunc(unknownFor, s.guests.again)
		}
		if now.Sub(who.unknown) < unknownFor {
			return
		}
	}
	s.guests.leave(who)
	s.log.Warn("stream ended: its peer may connect no longer", "device", who.Name, "peer", who.address.String(), "reason", status.Convert(err).Message())
	s.streams.count("", "revoked")
	who.revoke(err)
}

// admit is a gRPC interceptor: no stream gets further without an identity, and
// none goes on when its peer is revoked.
func (s *Server) admit(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	looks := s.guests.looked()
	who, err := s.identify(stream.Context())
	if err != nil {
		return err
	}
	if !info.IsServerStream { // a call that is over soon: see [asStreams]
		return handler(srv, admitted{ServerStream: stream, ctx: context.WithValue(stream.Context(), identityKey{}, who), quota: who.connection.peerQuota()})
	}
	ctx, end := context.WithCancelCause(context.WithValue(stream.Context(), identityKey{}, who))
	defer end(nil)
	g := &guest{peerInfo: who, ads: strings.HasPrefix(info.FullMethod, "/envoy.service.discovery.v3."), end: end, hangUp: connectionOf(stream.Context()).hangUp}
	s.guests.enter(g, looks)
	defer s.guests.leave(g)

	err = handler(srv, admitted{stream, ctx, g.ads, who.connection.peerQuota()})
	g.over.Store(true)
	if _, revoked := status.FromError(context.Cause(ctx)); revoked && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// revoke ends a stream. Its handler, which waits for requests and for news, waits
// for the end of its context as well; but while it writes, it waits for its peer
// alone, and what ends that is the end of the connection.
func (g *guest) revoke(why error) {
	g.end(why)
	time.AfterFunc(endWithin, func() {
		if !g.over.Load() {
			g.hangUp()
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
