package xds

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// Identity is who the tailnet says a peer is.
type Identity struct {
	// Name of the device, for people.
	Name string
	// Addresses of the device on the tailnet.
	Addresses []netip.Addr
	// Tags of the device; empty for a person's own.
	Tags []string
}

// IdentifyFunc tells whose address on the tailnet it is (WhoIs). Its error
// means that the tailnet does not know the address or cannot tell.
type IdentifyFunc func(context.Context, netip.AddrPort) (Identity, error)

// access decides who may open a stream: a device of the topology, or one that
// carries an allowed tag. What a node says of itself is never asked.
type access struct {
	identify IdentifyFunc
	tags     []string

	mu        sync.Mutex
	ready     bool
	addresses map[netip.Addr]bool
}

func newAccess(identify IdentifyFunc, tags []string) *access {
	return &access{identify: identify, tags: tags}
}

// allow sets the addresses of the topology's devices.
func (a *access) allow(addresses map[netip.Addr]bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.addresses = addresses
}

// open lets streams in, once there is something to serve.
func (a *access) open() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ready = true
}

// check returns who the peer is, or a gRPC status that says why it may not
// connect.
func (a *access) check(ctx context.Context, from netip.AddrPort) (Identity, error) {
	a.mu.Lock()
	ready, addresses := a.ready, a.addresses
	a.mu.Unlock()
	if !ready {
		return Identity{}, status.Error(codes.Unavailable, "no device list yet: the control plane has just started and waits for its provider")
	}
	if a.identify == nil {
		return Identity{Name: from.Addr().String()}, nil
	}
	who, err := a.identify(ctx, from)
	if err != nil {
		return Identity{}, status.Errorf(codes.PermissionDenied, "the tailnet cannot tell who %s is: %v", from.Addr(), err)
	}
	if slices.ContainsFunc(who.Addresses, func(ip netip.Addr) bool { return addresses[ip] }) ||
		slices.ContainsFunc(who.Tags, func(tag string) bool { return slices.Contains(a.tags, tag) }) {
		return who, nil
	}
	return who, status.Errorf(codes.PermissionDenied,
		"device %s (%s, tags %s) is no endpoint of any service: give it a weight tag or a grant, or allow one of its tags with --allow",
		who.Name, from.Addr(), orNone(who.Tags))
}

func orNone(tags []string) string {
	if len(tags) == 0 {
		return "none"
	}
	return strings.Join(tags, " ")
}

// identityKey is where admit leaves the peer's identity in a stream's context.
type identityKey struct{}

// admitted is a stream whose peer is known.
type admitted struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // this is how gRPC hands a value to a stream's handler
}

func (a admitted) Context() context.Context { return a.ctx }

// admit is a gRPC interceptor: no stream gets further without an identity.
func (s *Server) admit(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	from, err := peerAddress(stream.Context())
	if err != nil {
		return status.Error(codes.PermissionDenied, err.Error())
	}
	who, err := s.access.check(stream.Context(), from)
	if err != nil {
		s.log.Warn("stream refused", "peer", from.String(), "device", who.Name, "reason", status.Convert(err).Message())
		s.streams.count("", "refused")
		return err
	}
	ctx := context.WithValue(stream.Context(), identityKey{}, peerInfo{Identity: who, address: from})
	return handler(srv, admitted{ServerStream: stream, ctx: ctx})
}

// peerInfo is a peer's identity with the address it came from.
type peerInfo struct {
	Identity
	address netip.AddrPort
}

func peerAddress(ctx context.Context) (netip.AddrPort, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("the stream has no peer address")
	}
	from, err := netip.ParseAddrPort(p.Addr.String())
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("the stream's peer address %q is no IP address and port: %w", p.Addr, err)
	}
	return netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), nil
}
