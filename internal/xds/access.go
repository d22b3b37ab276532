package xds

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

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
	// Region is the one that its tags name; empty if none does.
	Region string
}

// ErrUnknownPeer is what an [IdentifyFunc] wraps if the tailnet knows for certain
// that no device has the address. Any other error means that it cannot say now.
var ErrUnknownPeer = errors.New("no device of the tailnet has this address")

// IdentifyFunc returns whose address on the tailnet it is (WhoIs).
type IdentifyFunc func(context.Context, netip.AddrPort) (Identity, error)

// access decides who may open a stream: a device of the topology, or one that
// carries an allowed tag. What a node says of itself is never asked.
type access struct {
	identify IdentifyFunc
	tags     []string

	mu        sync.Mutex
	published bool
	addresses map[netip.Addr]bool
	regions   map[netip.Addr]string
}

func newAccess(identify IdentifyFunc, tags []string) *access {
	return &access{identify: identify, tags: tags}
}

// setAddresses sets the addresses of the devices that may connect, and their regions, and
// reports whether they are others than before.
func (a *access) setAddresses(addresses map[netip.Addr]bool, regions map[netip.Addr]string) (changed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	changed = !maps.Equal(a.addresses, addresses) || !maps.Equal(a.regions, regions)
	a.addresses, a.regions = addresses, regions
	return changed
}

// region is where the tailnet knows a peer to be: the region of its endpoints,
// or else of its tags. Without a tailnet it is not known.
func (a *access) region(who Identity) (region string, known bool) {
	if a.identify == nil {
		return "", false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, address := range who.Addresses {
		if region := a.regions[address]; region != "" {
			return region, true
		}
	}
	return who.Region, true
}

// unknownPeer is the refusal of a peer that the tailnet does not know.
type unknownPeer struct{ *status.Status }

// Error implements error.
func (u unknownPeer) Error() string { return u.Err().Error() }

// GRPCStatus is what the peer receives.
func (u unknownPeer) GRPCStatus() *status.Status { return u.Status }

func isUnknown(err error) bool {
	var u unknownPeer
	return errors.As(err, &u)
}

// setPublished lets streams in, once there is something to serve.
func (a *access) setPublished() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.published = true
}

// check returns who the peer is, or a gRPC status that says why it may not
// connect.
func (a *access) check(ctx context.Context, from netip.AddrPort) (Identity, error) {
	a.mu.Lock()
	ready, addresses := a.published, a.addresses
	a.mu.Unlock()
	if !ready || (a.identify != nil && addresses == nil) {
		return Identity{}, status.Error(codes.Unavailable, "no device list yet: the control plane has just started and waits for its provider")
	}
	if a.identify == nil {
		return Identity{Name: from.Addr().String(), Addresses: []netip.Addr{from.Addr()}}, nil
	}
	who, err := a.identify(ctx, from)
	if errors.Is(err, ErrUnknownPeer) {
		return Identity{}, unknownPeer{status.Newf(codes.PermissionDenied, "the tailnet does not know who %s is: %v", from.Addr(), err)}
	} else if err != nil {
		return Identity{}, status.Errorf(codes.Unavailable, "the tailnet cannot tell who %s is: %v", from.Addr(), err)
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

// Caller is who calls one of [Config.Services].
type Caller struct {
	// Device is its name, and Address where it calls from.
	Device  string
	Address netip.AddrPort
	// Region is where the tailnet knows it to be; Known is false without a
	// tailnet, where only the caller itself can say.
	Region string
	Known  bool
	// Node is what the Envoy calls itself that fetches configuration over the same
	// connection; empty if none has.
	Node string
}

// CallerOf is who makes the call that ctx belongs to.
func CallerOf(ctx context.Context) Caller {
	who, _ := ctx.Value(identityKey{}).(peerInfo)
	return Caller{Device: sanitize(who.Name), Address: who.address, Region: who.region, Known: who.known, Node: who.connection.node()}
}

// identityKey is where admit leaves the peer's identity in a stream's context.
type identityKey struct{}

// identify returns who the peer of a call is, or why it may not connect.
func (s *Server) identify(ctx context.Context) (peerInfo, error) {
	from, err := peerAddress(ctx)
	if err != nil {
		return peerInfo{}, status.Error(codes.PermissionDenied, err.Error())
	}
	who, err := s.access.check(ctx, from)
	if err != nil {
		s.refused.logRefusal(time.Now(), from, who.Name, status.Convert(err).Message())
		s.streams.count("", "refused")
		return peerInfo{}, err
	}
	peer := peerInfo{Identity: who, address: from, connection: connectionOf(ctx)}
	peer.region, peer.known = s.access.region(who)
	return peer, nil
}

// peerInfo is a peer's identity with the address it came from.
type peerInfo struct {
	Identity
	address netip.AddrPort
	region  string
	known   bool // whether the tailnet says so
	// connection is that over which it calls; nil in tests without one.
	connection *connection
}

// device is what tells the peer's device from others: its first address, whichever
// of its addresses it calls from. Without a tailnet it is where the call comes from.
func (p peerInfo) device() netip.Addr {
	if len(p.Addresses) == 0 {
		return p.address.Addr()
	}
	return slices.MinFunc(p.Addresses, netip.Addr.Compare)
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
