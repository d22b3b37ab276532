package xds

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/tailxds/tailxds/internal/policy"
	"github.com/tailxds/tailxds/internal/topology"

	"github.com/tailxds/tailxds/internal/envoy"
	"github.com/tailxds/tailxds/internal/topology/topologytest"
)

// start runs a server on loopback until the test ends, and connects to it.
func start(t *testing.T, s *testServer) discovery.AggregatedDiscoveryServiceClient {
	t.Helper()
	return discovery.NewAggregatedDiscoveryServiceClient(connect(t, s))
}

// connect is start for those who ask for more than configuration.
func connect(t *testing.T, s *testServer) *grpc.ClientConn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return conn
}

// testServer is a server that publishes what is built of topologies and policies, as the
// control plane does.
type testServer struct {
	*Server
	resources *envoy.Resources // that were published last
}

// newServer makes a server of all types to which every peer may connect.
func newServer() *testServer { return newServerWith(Config{}) }

func newServerWith(config Config) *testServer {
	config.Types = envoy.Types()
	return &testServer{Server: NewServer(config)}
}

func (s *testServer) publish(top topology.Topology, p policy.Policy) error {
	next, err := envoy.Build(envoy.Input{Topology: top, Policy: p, DefaultService: "server", Regions: s.Regions(), Envoys: s.Envoys()}, s.resources)
	if err != nil {
		return err
	}
	if _, err := s.Publish(next); err != nil {
		return err
	}
	s.resources = next
	s.SetAccess(top.Addresses(), top.Regions())
	return nil
}

func (s *testServer) publishLocalCluster(weights map[string]uint32) error {
	next, err := s.resources.WithLocalCluster(weights)
	if err != nil {
		return err
	}
	s.resources = next
	_, err = s.PublishUntracked(next)
	return err
}

// assignmentOf is the name under which the cluster of a service asks for its endpoints.
func (s *testServer) assignmentOf(service string) string {
	return s.resources.All(Cds)[service].(*cluster.Cluster).GetEdsClusterConfig().GetServiceName()
}

func set(t *testing.T, s *testServer, top topology.Topology) {
	t.Helper()
	if err := s.publish(top, policy.Default()); err != nil {
		t.Fatal(err)
	}
}

// typeName is the short name of a type.
func typeName(url string) string {
	types := newTypeTable(envoy.Types())
	return types.name(types.index(url))
}

// mustParse reads a policy.
func mustParse(t *testing.T, text string) policy.Policy {
	t.Helper()
	p, err := policy.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// deltaStream is a client that speaks incremental xDS, one message at a time.
type deltaStream struct {
	t *testing.T
	discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
}

func openDelta(t *testing.T, c discovery.AggregatedDiscoveryServiceClient) deltaStream {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	stream, err := c.DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return deltaStream{t, stream}
}

// ask subscribes to names of a type ("*" for all), as one who has known.
func (d deltaStream) ask(url string, known map[string]string, names ...string) {
	d.t.Helper()
	d.send(&discovery.DeltaDiscoveryRequest{
		Node: &core.Node{Id: "node"}, TypeUrl: url, ResourceNamesSubscribe: names, InitialResourceVersions: known,
	})
}

func (d deltaStream) send(r *discovery.DeltaDiscoveryRequest) {
	d.t.Helper()
	// EOF says that the server has ended the stream; Recv tells why.
	if err := d.Send(r); err != nil && !errors.Is(err, io.EOF) {
		d.t.Fatal(err)
	}
}

// want receives a response of a type and acknowledges it, or rejects it with
// the words given.
func (d deltaStream) want(url, reject string) *discovery.DeltaDiscoveryResponse {
	d.t.Helper()
	r, err := d.Recv()
	if err != nil {
		d.t.Fatal(err)
	}
	if r.GetTypeUrl() != url {
		d.t.Fatalf("got a response of %s, want %s", typeName(r.GetTypeUrl()), typeName(url))
	}
	answer := &discovery.DeltaDiscoveryRequest{TypeUrl: url, ResponseNonce: r.GetNonce()}
	if reject != "" {
		answer.ErrorDetail = &status.Status{Message: reject}
	}
	d.send(answer)
	return r
}

// settle waits until the server has worked off all that was sent: requests of
// one stream are answered in order. It takes the listener to ask for, once.
func (d deltaStream) settle() {
	d.t.Helper()
	d.ask(lds, nil, envoy.IngressListener)
	d.want(lds, "")
}

// worldStream is a client that speaks state-of-the-world xDS, one message at a
// time, and names its node only once.
type worldStream struct {
	t *testing.T
	discovery.AggregatedDiscoveryService_StreamAggregatedResourcesClient
	names map[string][]string // last asked for, by type
	nonce string              // of the last listeners
}

func openWorld(t *testing.T, c discovery.AggregatedDiscoveryServiceClient) *worldStream {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	stream, err := c.StreamAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &worldStream{t: t, AggregatedDiscoveryService_StreamAggregatedResourcesClient: stream, names: make(map[string][]string)}
}

// ask subscribes to names of a type, or to all.
func (w *worldStream) ask(url string, names ...string) {
	w.t.Helper()
	r := &discovery.DiscoveryRequest{TypeUrl: url, ResourceNames: names}
	if len(w.names) == 0 {
		r.Node = &core.Node{Id: "node"}
	}
	w.names[url] = names
	w.send(r)
}

func (w *worldStream) send(r *discovery.DiscoveryRequest) {
	w.t.Helper()
	if err := w.Send(r); err != nil && !errors.Is(err, io.EOF) {
		w.t.Fatal(err)
	}
}

// next receives a response and acknowledges it.
func (w *worldStream) next() *discovery.DiscoveryResponse {
	w.t.Helper()
	r, err := w.Recv()
	if err != nil {
		w.t.Fatal(err)
	}
	if r.GetTypeUrl() == lds {
		w.nonce = r.GetNonce()
	}
	w.send(&discovery.DiscoveryRequest{
		TypeUrl: r.GetTypeUrl(), ResourceNames: w.names[r.GetTypeUrl()], VersionInfo: r.GetVersionInfo(), ResponseNonce: r.GetNonce(),
	})
	return r
}

// want is next of a type.
func (w *worldStream) want(url string) *discovery.DiscoveryResponse {
	w.t.Helper()
	r := w.next()
	if r.GetTypeUrl() != url {
		w.t.Fatalf("got a response of %s, want %s", typeName(r.GetTypeUrl()), typeName(url))
	}
	return r
}

// settle waits until the server has worked off all that was sent, by asking for
// the listener as one who knows none. It stands last in every order.
func (w *worldStream) settle() {
	w.t.Helper()
	w.send(&discovery.DiscoveryRequest{TypeUrl: lds, ResponseNonce: w.nonce})
	w.want(lds)
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// logged is a server of one service, and its log.
func logged() (*testServer, *lockedBuffer) {
	log := &lockedBuffer{}
	s := newServerWith(Config{Log: slog.New(slog.NewTextHandler(log, nil))})
	if err := s.publish(topologytest.OneService(), policy.Default()); err != nil {
		panic(err)
	}
	return s, log
}

// weights are the endpoints' weights in a response, by device.
func weights(t *testing.T, resources []*discovery.Resource) map[string]uint32 {
	t.Helper()
	got := make(map[string]uint32)
	for _, r := range resources {
		var cla endpoint.ClusterLoadAssignment
		if err := proto.Unmarshal(r.GetResource().GetValue(), &cla); err != nil {
			t.Fatal(err)
		}
		for _, l := range cla.GetEndpoints() {
			for _, e := range l.GetLbEndpoints() {
				got[e.GetEndpoint().GetHostname()] = e.GetLoadBalancingWeight().GetValue()
			}
		}
	}
	return got
}

const (
	lds = resource.ListenerType
	rds = resource.RouteType
	Cds = resource.ClusterType
	Eds = resource.EndpointType
)
