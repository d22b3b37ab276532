package xds

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/netip"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/orca"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	grpcxds "google.golang.org/grpc/xds"

	"github.com/tailxds/tailxds/internal/policy"
	"github.com/tailxds/tailxds/internal/topology"

	"github.com/tailxds/tailxds/internal/topology/topologytest"
)

// world is gRPC servers, each on an address of its own, a control plane that
// knows them, and a gRPC client that knows only the control plane.
type world struct {
	t         *testing.T
	s         *testServer
	policy    policy.Policy
	endpoints map[string][]topology.Endpoint // by service
	stop      map[string]func()              // by the server's name
	names     map[string]string              // of servers, by address
	bootstrap []byte
}

func newWorld(t *testing.T, policy string) *world {
	t.Helper()
	w := &world{t: t, s: newServer(), policy: mustParse(t, policy), endpoints: map[string][]topology.Endpoint{}, stop: map[string]func(){}, names: map[string]string{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	w.bootstrap = fmt.Appendf(nil, `{"xds_servers": [{"server_uri": %q, "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"]}],
		"node": {"id": "client", "locality": {"region": "west"}}}`, l.Addr())
	return w
}

// serve starts a server of a service.
func (w *world) serve(service, name, region string, weight uint32, options ...grpc.ServerOption) {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	server := grpc.NewServer(options...)
	healthpb.RegisterHealthServer(server, health.NewServer())
	go func() { _ = server.Serve(l) }() // until it is stopped
	w.t.Cleanup(server.Stop)
	w.stop[name], w.names[l.Addr().String()] = server.Stop, name
	w.endpoints[service] = append(w.endpoints[service], topology.Endpoint{
		Device: name, Name: name, Address: netip.MustParseAddrPort(l.Addr().String()), Weight: weight, Region: region, State: topology.Serving,
	})
}

func (w *world) publish() {
	w.t.Helper()
	var t topology.Topology
	for service, endpoints := range w.endpoints {
		t.Services = append(t.Services, topology.NewService(service, endpoints))
	}
	if err := w.s.publish(t, w.policy); err != nil {
		w.t.Fatal(err)
	}
}

// dial is a client of a service that is found by xDS.
func (w *world) dial(service string) *grpc.ClientConn {
	w.t.Helper()
	resolver, err := grpcxds.NewXDSResolverWithConfigForTesting(w.bootstrap)
	if err != nil {
		w.t.Fatal(err)
	}
	conn, err := grpc.NewClient("xds:///"+service, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithResolvers(resolver))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			w.t.Error(err)
		}
	})
	return conn
}

// call calls once, and tells who answered.
func (w *world) call(conn *grpc.ClientConn, headers ...string) (string, error) {
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(context.Background(), headers...), 20*time.Second)
	defer cancel()
	var who peer.Peer
	if _, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}, grpc.Peer(&who)); err != nil {
		return "", err
	}
	return w.names[who.Addr.String()], nil
}

// await calls until the shares of who answers are as the weights say, and no
// call fails, as some do that were sent to a server that has just died. gRPC
// draws each server at random, so each count must be within seven times its
// deviation.
func (w *world) await(conn *grpc.ClientConn, want map[string]float64, headers ...string) {
	w.t.Helper()
	const calls = 2000
	var sum float64
	for _, weight := range want {
		sum += weight
	}
	deadline := time.Now().Add(time.Minute)
	for {
		counts, err := w.count(conn, calls, headers...)
		for _, name := range w.names {
			p := want[name] / sum
			if off := math.Abs(float64(counts[name]) - calls*p); err == nil && off > 7*math.Sqrt(calls*p*(1-p)) {
				err = fmt.Errorf("of %d calls %s got %d, want %.0f", calls, name, counts[name], calls*p)
			}
		}
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatal(err)
		}
	}
}

// count is who answered how many of some calls.
func (w *world) count(conn *grpc.ClientConn, calls int, headers ...string) (map[string]int, error) {
	counts := map[string]int{}
	for range calls {
		who, err := w.call(conn, headers...)
		if err != nil {
			return nil, err
		}
		counts[who]++
	}
	return counts, nil
}

// A gRPC client without a proxy gets the weights' shares over servers and
// regions, follows changes, and goes on when a server dies.
func TestGRPCClient_withoutProxy_balances(t *testing.T) {
	w := newWorld(t, "services: {hello: {protocol: grpc}, plain: {}}")
	w.serve("hello", "a", "west", 1)
	w.serve("hello", "b", "west", 3)
	w.serve("hello", "c", "east", 4)
	w.serve("plain", "x", "west", 1)
	w.publish()
	conn := w.dial("hello")
	w.await(conn, map[string]float64{"a": 1, "b": 3, "c": 4})
	w.endpoints["hello"][0].Weight = 5
	w.publish()
	w.await(conn, map[string]float64{"a": 5, "b": 3, "c": 4})
	w.stop["b"]() // nobody is told
	w.await(conn, map[string]float64{"a": 5, "c": 4})
	w.endpoints["hello"] = w.endpoints["hello"][:1]
	w.publish()
	w.await(conn, map[string]float64{"a": 1})

	// What speaks no gRPC has nothing for its clients.
	for url, name := range map[string]string{lds: "plain", Cds: "plain/grpc"} {
		if r, ok := w.s.resources.Named(url)[name]; ok {
			t.Errorf("there is %v", r)
		}
	}
	for _, stream := range w.s.Streams() {
		for name, of := range stream.Types {
			if of.Rejected != "" {
				t.Errorf("%s rejected: %s", name, of.Rejected)
			}
		}
	}
}

// reportsLoad has a server tell in each answer (ORCA) that it works at a certain
// rate, half busy: so its weight by load is as its rate.
func reportsLoad(rate float64) []grpc.ServerOption {
	return []grpc.ServerOption{orca.CallMetricsServerOption(nil), grpc.ChainUnaryInterceptor(
		func(ctx context.Context, r any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			orca.CallMetricsRecorderFromContext(ctx).SetQPS(rate)
			orca.CallMetricsRecorderFromContext(ctx).SetApplicationUtilization(0.5)
			return handler(ctx, r)
		},
	)}
}

// A gRPC client without a proxy gives servers that report their load what each
// can carry, whatever their weights say; regions keep their shares.
func TestGRPCClient_loadReports_areBelieved(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "services: {hello: {protocol: grpc, load_balancing: client_side_weighted_round_robin}}")
	w.serve("hello", "a", "west", 3, reportsLoad(100)...)
	w.serve("hello", "b", "west", 1, reportsLoad(300)...)
	w.serve("hello", "c", "east", 4, reportsLoad(100)...)
	w.publish()
	conn := w.dial("hello")
	// gRPC believes a server that has reported for ten seconds.
	w.await(conn, map[string]float64{"a": 1, "b": 3, "c": 4})
	for _, stream := range w.s.Streams() {
		for name, of := range stream.Types {
			if of.Rejected != "" {
				t.Errorf("%s rejected: %s", name, of.Rejected)
			}
		}
	}
}

// A region's own servers go first, where the policy wants it.
func TestGRPCClient_region_isPreferred(t *testing.T) {
	w := newWorld(t, "services: {hello: {protocol: grpc, locality: local}}")
	w.serve("hello", "a", "west", 1)
	w.serve("hello", "b", "west", 3)
	w.serve("hello", "c", "east", 4)
	w.publish()
	conn := w.dial("hello")
	w.await(conn, map[string]float64{"a": 1, "b": 3})
	w.stop["a"]()
	w.await(conn, map[string]float64{"b": 1})
	w.stop["b"]()
	w.await(conn, map[string]float64{"c": 1})
}

// Rules send a client's calls to other services, by method, header and share.
func TestGRPCClient_rules_areFollowed(t *testing.T) {
	w := newWorld(t, `
services:
  hello:
    protocol: grpc
    routes:
    - {path: /grpc.health.v1.Health, headers: {x-user: tester}, service: next}
    - {path: /grpc.health.v1.Health/Check, headers: {x-user: lost}, service: nobody}
    - {path: /grpc.health.v1.Heal, service: nobody}
    - split: {hello: 5, next: 3, third: 2}
  next: {protocol: http2}
  third: {protocol: http2}
`)
	w.serve("hello", "a", "", 1)
	w.serve("next", "b", "", 1)
	w.serve("third", "c", "", 1)
	w.publish()
	conn := w.dial("hello")
	w.await(conn, map[string]float64{"a": 5, "b": 3, "c": 2})
	w.await(conn, map[string]float64{"b": 1}, "x-user", "tester")
	if who, err := w.call(conn, "x-user", "lost"); status.Code(err) != codes.Unavailable {
		t.Errorf("what goes to nobody: %q, %v", who, err)
	}
}

// Calls with the same header go to the same server.
func TestGRPCClient_hash_isSticky(t *testing.T) {
	w := newWorld(t, "services: {hello: {protocol: grpc, load_balancing: maglev, hash_on: {header: x-user}}}")
	w.serve("hello", "a", "", 1)
	w.serve("hello", "b", "", 3)
	w.publish()
	conn := w.dial("hello")
	counts := map[string]int{}
	for user := range 400 {
		var first string
		for range 3 {
			who, err := w.call(conn, "x-user", fmt.Sprint(user))
			if err != nil || (first != "" && who != first) {
				t.Fatalf("user %d: %q after %q, %v", user, who, first, err)
			}
			first = who
		}
		counts[first]++
	}
	if n := counts["b"]; n < 240 || n > 360 { // as for Envoys
		t.Errorf("%v", counts)
	}
}

// An Envoy, which asks for all, is sent nothing that is for gRPC clients.
func TestEnvoy_grpcResources_areNotSent(t *testing.T) {
	s := newServer()
	policy := mustParse(t, "defaults: {protocol: grpc}")
	if err := s.publish(topologytest.OneService(), policy); err != nil {
		t.Fatal(err)
	}
	c := start(t, s)
	delta, all := openDelta(t, c), openWorld(t, c)
	for _, url := range []string{Cds, lds} {
		delta.ask(url, nil, "*")
		all.ask(url)
		for _, r := range delta.want(url, "").GetResources() {
			if r.GetName() == "server/grpc" || (url == lds && r.GetName() == "server") {
				t.Errorf("delta: sent %s", r.GetName())
			}
		}
		want := len(s.resources.All(url))
		if got := len(all.want(url).GetResources()); got != want {
			t.Errorf("state of the world: %d of %s, want %d", got, typeName(url), want)
		}
	}
}

// A client whose servers report their load takes the same policy as Envoys do.
func TestGRPCClient_reportingServers_getResources(t *testing.T) {
	w := newWorld(t, "services: {hello: {protocol: grpc, load_balancing: client_side_weighted_round_robin}}")
	w.serve("hello", "a", "west", 1)
	w.serve("hello", "b", "west", 3)
	w.publish()
	w.await(w.dial("hello"), map[string]float64{"a": 1, "b": 1}) // none has reported
	for _, stream := range w.s.Streams() {
		for name, of := range stream.Types {
			if of.Rejected != "" {
				t.Errorf("%s rejected: %s", name, of.Rejected)
			}
		}
	}
}
