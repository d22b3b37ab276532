package netmap

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tailscale.com/client/local"
	"tailscale.com/tailcfg"
	"tailscale.com/tsnet"
	"tailscale.com/tstest/integration"
	"tailscale.com/tstest/integration/testcontrol"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"

	"github.com/tailxds/tailxds/internal/provider"
	"github.com/tailxds/tailxds/internal/topology"
)

// tailnet is a coordination server in this process with one real node on it,
// the control plane's. Its peers are only told of, by hand.
type tailnet struct {
	t       *testing.T
	control *testcontrol.Server
	link    *link
	self    key.NodePublic
	user    tailcfg.UserID
	local   *local.Client
	calls   *calls
}

func newTailnet(t *testing.T) *tailnet {
	t.Helper()
	control := &testcontrol.Server{
		DERPMap: integration.RunDERPAndSTUN(t, logger.Discard, "127.0.0.1"),
		Logf:    logger.Discard,
	}
	control.HTTPTestServer = httptest.NewUnstartedServer(control)
	link := &link{Listener: control.HTTPTestServer.Listener}
	control.HTTPTestServer.Listener = link
	control.HTTPTestServer.Start()
	t.Cleanup(func() {
		link.cut()
		control.HTTPTestServer.Close()
	})
	node := &tsnet.Server{
		Dir: t.TempDir(), ControlURL: control.HTTPTestServer.URL, Hostname: "control-plane",
		Logf: logger.Discard, UserLogf: logger.Discard,
	}
	t.Cleanup(func() { _ = node.Close() })
	status, err := node.Up(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	lc, err := node.LocalClient()
	if err != nil {
		t.Fatal(err)
	}
	n := &tailnet{
		t: t, control: control, link: link,
		self: status.Self.PublicKey, user: status.Self.UserID,
	}
	n.local, n.calls = counted(t, lc)
	if err := control.AwaitNodeInMapRequest(t.Context(), n.self); err != nil {
		t.Fatal(err)
	}
	// From here on the node hears only what a test says.
	n.say(&tailcfg.MapResponse{})
	return n
}

// link is the way to the coordination server, until it is cut.
type link struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
	down  bool
}

func (l *link) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil && l.down {
		_ = c.Close()
	}
	l.conns = append(l.conns, c)
	return c, err
}

func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = true
	for _, c := range l.conns {
		if c != nil {
			_ = c.Close()
		}
	}
}

// say sends one message of the map stream to the control plane's node.
func (n *tailnet) say(m *tailcfg.MapResponse) {
	n.t.Helper()
	if !n.control.AddRawMapResponse(n.self, m) {
		n.t.Fatal("the node has no map stream")
	}
}

// peer makes a peer, numbered from 1.
func (n *tailnet) peer(id int, tags ...string) *tailcfg.Node {
	v4 := netip.AddrFrom4([4]byte{100, 100, byte(id >> 8), byte(id)})
	v6 := netip.MustParseAddr(fmt.Sprintf("fd7a:115c:a1e0::%x", id+0x1000))
	own := []netip.Prefix{netip.PrefixFrom(v4, 32), netip.PrefixFrom(v6, 128)}
	route := netip.MustParsePrefix("10.7.0.0/16")
	return &tailcfg.Node{
		ID: tailcfg.NodeID(1000 + id), StableID: tailcfg.StableNodeID(fmt.Sprintf("n%d", id)),
		Name: fmt.Sprintf("west-%d.tail-scale.ts.net.", id), User: n.user,
		Key: key.NewNode().Public(), Machine: key.NewMachine().Public(), DiscoKey: key.NewDisco().Public(),
		Addresses: own, AllowedIPs: append(own[:2:2], route), PrimaryRoutes: []netip.Prefix{route},
		MachineAuthorized: true, Online: new(true), Tags: tags, HomeDERP: 1,
		Hostinfo: (&tailcfg.Hostinfo{Hostname: "os-name"}).View(),
	}
}

// policy is a packet filter that grants the JSON object to the peers.
func policy(object string, peers ...*tailcfg.Node) []tailcfg.FilterRule {
	grants := tailcfg.FilterRule{CapGrant: []tailcfg.CapGrant{{
		Dsts:   []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")},
		CapMap: tailcfg.PeerCapMap{topology.Capability: {tailcfg.RawMessage(object)}},
	}}}
	for _, p := range peers {
		for _, a := range p.Addresses {
			grants.SrcIPs = append(grants.SrcIPs, a.Addr().String())
		}
	}
	return append([]tailcfg.FilterRule{grants}, tailcfg.FilterAllowAll...)
}

// counted is a client of the same local API that counts what is asked.
func counted(t *testing.T, lc *local.Client) (*local.Client, *calls) {
	c := &calls{inner: &http.Transport{DialContext: lc.Dial, DisableKeepAlives: true}, count: map[string]int{}}
	t.Cleanup(c.inner.CloseIdleConnections)
	return &local.Client{Transport: c, OmitAuth: true}, c
}

type calls struct {
	inner *http.Transport
	mu    sync.Mutex
	count map[string]int
}

func (c *calls) RoundTrip(r *http.Request) (*http.Response, error) {
	name := strings.TrimPrefix(r.URL.Path, "/localapi/v0/")
	if name == "status" && r.URL.Query().Get("peers") != "false" {
		name = "status whole"
	}
	c.mu.Lock()
	c.count[name]++
	c.mu.Unlock()
	return c.inner.RoundTrip(r)
}

func (c *calls) of(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count[name]
}

// watcher is a source that wakes.
type watcher interface {
	Watch(ctx context.Context, wake func())
}

// listOf is a source that always lists the same devices.
type listOf []topology.Device

// List implements [provider.Source].
func (l listOf) List(context.Context) ([]topology.Device, error) { return slices.Clone(l), nil }

// transport answers requests without a network, so that time can be faked.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// follow runs the netmap's watch and lists at each wake, until want holds.
func (n *tailnet) follow(src provider.Source, act func(), want func([]topology.Device) bool) []topology.Device {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 10*time.Second)
	woken := make(chan struct{}, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		src.(watcher).Watch(ctx, func() {
			select {
			case woken <- struct{}{}:
			default:
			}
		})
	}()
	defer func() { cancel(); <-done }()
	<-woken // the watch has begun
	if _, err := src.List(ctx); err != nil {
		n.t.Fatal(err)
	}
	act()
	var last []topology.Device
	for {
		select {
		case <-woken:
		case <-ctx.Done():
			n.t.Fatalf("no list as wanted came; the last was %+v", last)
		}
		devices, err := src.List(ctx)
		if err != nil {
			n.t.Fatal(err)
		}
		if last = devices; want(devices) {
			return devices
		}
	}
}

func (c *calls) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.count)
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
