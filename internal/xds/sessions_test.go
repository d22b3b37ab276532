package xds

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/tailxds/tailxds/internal/topology/topologytest"
)

// registry is a tailnet on which the test says who has 127.0.0.1.
type registry struct {
	mu  sync.Mutex
	who Identity
	err error
}

func (r *registry) is(who Identity, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.who, r.err = who, err
}

func (r *registry) identify(context.Context, netip.AddrPort) (Identity, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.who, r.err
}

func device1(tags ...string) Identity {
	return Identity{Name: "d1", Addresses: []netip.Addr{netip.MustParseAddr("100.64.0.1")}, Tags: tags}
}

// admission is a server on a tailnet, and what it was told of.
type admission struct {
	*testServer
	tailnet *registry
	changes chan struct{}
}

func newAdmission(t *testing.T, who Identity) (*admission, discovery.AggregatedDiscoveryServiceClient) {
	t.Helper()
	a := &admission{tailnet: &registry{who: who}, changes: make(chan struct{}, 1000)}
	a.testServer = newServerWith(Config{
		Identify: a.tailnet.identify, AllowTags: []string{"tag:gateway"},
		OnChange: func() { a.changes <- struct{}{} },
	})
	set(t, a.testServer, topologytest.OneService())
	return a, start(t, a.testServer)
}

// isConnected waits until the address is connected, or not.
func (a *admission) isConnected(t *testing.T, address string, want bool) {
	t.Helper()
	for a.Connected()[netip.MustParseAddr(address)] != want {
		select {
		case <-a.changes:
		case <-time.After(20 * time.Second):
			t.Fatalf("connected: %v; want %s there: %t", a.Connected(), address, want)
		}
	}
}

// ended receives the end of a stream.
func ended(t *testing.T, stream deltaStream, part string) {
	t.Helper()
	_, err := stream.Recv()
	if status.Code(err) != codes.PermissionDenied || !strings.Contains(status.Convert(err).Message(), part) {
		t.Errorf("the stream ended with %v, want PermissionDenied and %q", err, part)
	}
}

func TestReauthorize_deviceLeft_endsStream(t *testing.T) {
	a, c := newAdmission(t, device1())
	stream := openDelta(t, c)
	stream.ask(Eds, nil, "server")
	stream.want(Eds, "")
	a.isConnected(t, "100.64.0.1", true)
	if !a.Connected()[netip.MustParseAddr("127.0.0.1")] {
		t.Errorf("where the stream comes from is not connected: %v", a.Connected())
	}
	set(t, a.testServer, topologytest.Of(map[string][]string{"d2": {"tag:weight-2"}}))
	stream.want(Eds, "") // it was published before
	ended(t, stream, "device d1 (127.0.0.1, tags none) is no endpoint of any service")
	a.isConnected(t, "100.64.0.1", false)
	// A new stream is told the same.
	again := openDelta(t, c)
	ended(t, again, "device d1 (127.0.0.1, tags none) is no endpoint of any service")
	if !slices.Contains(a.Counts(), Count{Result: "revoked", N: 1}) || !slices.Contains(a.Counts(), Count{Result: "refused", N: 1}) {
		t.Errorf("counts: %+v", a.Counts())
	}
}

func TestReauthorize_tagLost_endsStream(t *testing.T) {
	other := Identity{Name: "gate", Addresses: []netip.Addr{netip.MustParseAddr("100.64.0.9")}, Tags: []string{"tag:gateway"}}
	a, c := newAdmission(t, other)
	stream := openDelta(t, c)
	stream.ask(Cds, nil, "*")
	stream.want(Cds, "")
	other.Tags = []string{"tag:retired"}
	a.tailnet.is(other, nil)
	a.Reauthorize()
	ended(t, stream, "tags tag:retired")
}

func TestReauthorize_noAnswer_keepsStream(t *testing.T) {
	a, c := newAdmission(t, device1())
	stream := openDelta(t, c)
	stream.ask(Eds, nil, "server")
	stream.want(Eds, "")
	a.tailnet.is(Identity{}, errors.New("the daemon does not answer"))
	for range 3 {
		a.reauthorizeAll(t.Context())
	}
	a.tailnet.is(Identity{}, ErrUnknownPeer)
	a.reauthorizeAll(t.Context()) // a netmap may lack a peer for a moment
	a.tailnet.is(device1(), nil)
	a.reauthorizeAll(t.Context())
	stream.settle()
	a.isConnected(t, "100.64.0.1", true)

	a.tailnet.is(Identity{}, ErrUnknownPeer)
	a.Reauthorize()
	ended(t, stream, "does not know who 127.0.0.1 is")
	a.isConnected(t, "100.64.0.1", false)
}

func TestReauthorize_otherDeviceWithAddress_endsStream(t *testing.T) {
	a, c := newAdmission(t, device1())
	stream := openDelta(t, c)
	stream.ask(Eds, nil, "server")
	stream.want(Eds, "")
	a.tailnet.is(Identity{Name: "laptop", Addresses: []netip.Addr{netip.MustParseAddr("100.64.0.77")}}, nil)
	a.Reauthorize()
	ended(t, stream, "device laptop")
}

// A device that may stay, and has other addresses by now, is known by those.
func TestConnected_identityChanged_isCurrent(t *testing.T) {
	gate := Identity{Name: "gate", Addresses: []netip.Addr{netip.MustParseAddr("100.64.0.9")}, Tags: []string{"tag:gateway"}}
	a, c := newAdmission(t, gate)
	stream := openDelta(t, c)
	stream.ask(Cds, nil, "*")
	stream.want(Cds, "")
	gate.Addresses = []netip.Addr{netip.MustParseAddr("100.64.0.10")}
	a.tailnet.is(gate, nil)
	a.Reauthorize()
	a.isConnected(t, "100.64.0.10", true)
	a.isConnected(t, "100.64.0.9", false)
}

// Who is admitted while all others are judged is judged once more: it was let in
// by what was true before.
func TestReauthorize_newStreamMeanwhile_isChecked(t *testing.T) {
	who := device1()
	var a *admission
	asked := make(chan struct{}, 2)
	answer := make(chan Identity)
	a = &admission{changes: make(chan struct{}, 1000)}
	a.testServer = newServerWith(Config{
		OnChange: func() { a.changes <- struct{}{} },
		Identify: func(context.Context, netip.AddrPort) (Identity, error) {
			asked <- struct{}{}
			return <-answer, nil
		},
	})
	set(t, a.testServer, topologytest.OneService())
	stream := openDelta(t, start(t, a.testServer))
	stream.ask(Cds, nil, "*")
	<-asked // the answer is on its way, and will be outdated
	a.reauthorizeAll(t.Context())
	answer <- who
	<-asked
	answer <- Identity{Name: "laptop", Addresses: []netip.Addr{netip.MustParseAddr("100.64.0.77")}}
	for {
		if _, err := stream.Recv(); err != nil {
			if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "device laptop") {
				t.Errorf("the stream ended with %v", err)
			}
			return
		}
	}
}

func TestReauthorize_sotwStream_ends(t *testing.T) {
	a, c := newAdmission(t, device1())
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	stream, err := c.StreamAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&discovery.DiscoveryRequest{Node: &core.Node{Id: "node"}, TypeUrl: Cds}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	set(t, a.testServer, topologytest.Of(map[string][]string{"d2": {"tag:weight-2"}}))
	for err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("ended with %v", err)
	}
}

// A stream on which nobody ever says a word ends as well.
func TestReauthorize_silentStream_ends(t *testing.T) {
	a, c := newAdmission(t, device1())
	stream := openDelta(t, c)
	a.isConnected(t, "100.64.0.1", true)
	set(t, a.testServer, topologytest.Of(map[string][]string{"d2": {"tag:weight-2"}}))
	ended(t, stream, "is no endpoint of any service")
}

// A stream whose peer reads nothing waits in a write when it is revoked, and ends
// all the same.
func TestReauthorize_unreadStream_ends(t *testing.T) {
	a, c := newAdmission(t, device1())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream, err := c.DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	devices := make(map[string][]string) // whose names take more room than there is on the way at first
	for i := range 200 {
		devices[fmt.Sprintf("d%d-%s", i+1, strings.Repeat("x", 1000))] = []string{"tag:weight-1"}
	}
	devices["d1"] = []string{"tag:weight-1"}
	set(t, a.testServer, topologytest.Of(devices))
	for !writes() { // who asks again is sent it again, until there is no room on the way
		if err := stream.Send(&discovery.DeltaDiscoveryRequest{Node: &core.Node{Id: "deaf"}, TypeUrl: Eds, ResourceNamesSubscribe: []string{"server"}}); err != nil {
			t.Fatal(err)
		}
	}
	set(t, a.testServer, topologytest.Of(map[string][]string{"d2": {"tag:weight-2"}}))
	for len(a.Streams()) > 0 {
		runtime.Gosched()
	}
	for err == nil {
		_, err = stream.Recv()
	}
	if ctx.Err() != nil {
		t.Error("the stream lasted")
	}
}

// writes tells whether a stream waits until it may write on.
func writes() bool {
	stacks := make([]byte, 1<<20)
	all := string(stacks[:runtime.Stack(stacks, true)])
	at := strings.Index(all, "xds.admitted.SendMsg")
	return at > 0 && strings.Contains(all[max(0, at-2000):at], "writeQuota")
}

func TestConnected_streams_areCounted(t *testing.T) {
	a, c := newAdmission(t, device1())
	ctx, cancel := context.WithCancel(t.Context())
	for range 20 {
		if _, err := c.DeltaAggregatedResources(ctx); err != nil {
			t.Fatal(err)
		}
	}
	last := openDelta(t, c)
	last.settle()
	a.isConnected(t, "100.64.0.1", true)
	cancel()
	for len(a.sessions.beginRound()) > 1 {
		<-a.changes
	}
	a.isConnected(t, "100.64.0.1", true)
	last.ask(Cds, nil, "*")
	last.want(Cds, "")
	if err := last.CloseSend(); err != nil {
		t.Fatal(err)
	}
	a.isConnected(t, "100.64.0.1", false)
}

// Without a tailnet, a peer is who its address says.
// Several streams of one device count as one.
func TestEnvoys_severalStreamsOfADevice_countOnce(t *testing.T) {
	s := newServer()
	for i := range 51 {
		who := peerInfo{address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{100, 64, 0, byte(i)}), 1)}
		s.sessions.add(&session{peerInfo: who, ads: true}, s.sessions.round())
		s.sessions.add(&session{peerInfo: who, ads: true}, s.sessions.round()) // another stream of the same device
	}
	s.sessions.add(&session{}, s.sessions.round()) // it reports only
	if got := s.Envoys(); got != 51 {
		t.Errorf("%d Envoys, want 51", got)
	}
}

func TestConnected_withoutTailnet_usesAddresses(t *testing.T) {
	s := newServer()
	set(t, s, topologytest.OneService())
	stream := openDelta(t, start(t, s))
	stream.settle()
	if got := slices.Collect(maps.Keys(s.Connected())); len(got) != 1 || got[0] != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("connected: %v", got)
	}
	s.reauthorizeAll(t.Context())
	stream.ask(Cds, nil, "*")
	stream.want(Cds, "")
}

func TestSessions_endedStreams_areForgotten(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("many streams", func(t *testing.T) {
		a, c := newAdmission(t, device1())
		for range 50 {
			stream := openDelta(t, c)
			stream.ask(Cds, nil, "*")
			stream.want(Cds, "")
		}
		set(t, a.testServer, topologytest.Of(map[string][]string{"d2": {"tag:weight-2"}}))
		for len(a.sessions.beginRound()) > 0 {
			<-a.changes
		}
	})
	deadline := time.Now().Add(20 * time.Second)
	for runtime.NumGoroutine() > before+2 {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
		runtime.Gosched()
	}
}
