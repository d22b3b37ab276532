package xds

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	health "google.golang.org/grpc/health/grpc_health_v1"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/tailxds/tailxds/internal/topology/topologytest"
)

// callee is a further service that notes who calls it.
type callee struct {
	health.UnimplementedHealthServer
	callers chan Caller
}

func (c callee) Check(ctx context.Context, _ *health.HealthCheckRequest) (*health.HealthCheckResponse, error) {
	c.callers <- CallerOf(ctx)
	return &health.HealthCheckResponse{}, nil
}

// Whoever calls over a connection is who fetches configuration over it.
func TestConnection_calls_areOfItsEnvoy(t *testing.T) {
	further := callee{callers: make(chan Caller, 1)}
	s := newServerWith(Config{Services: []func(grpc.ServiceRegistrar){
		func(r grpc.ServiceRegistrar) { health.RegisterHealthServer(r, further) },
	}})
	set(t, s, topologytest.OneService())
	one := connect(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	callsAs := func(c *grpc.ClientConn, want string) {
		t.Helper()
		if _, err := health.NewHealthClient(c).Check(ctx, &health.HealthCheckRequest{}); err != nil {
			t.Fatal(err)
		}
		if got := (<-further.callers).Node; got != want {
			t.Errorf("it calls as %q, want %q", got, want)
		}
	}
	callsAs(one, "")
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(one).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: resource.ClusterType, Node: &core.Node{Id: "one\x1b[31m"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil { // the request has been read
		t.Fatal(err)
	}
	callsAs(one, s.Streams()[0].Node)
	if name := s.Streams()[0].Node; name == "" || name == "one\x1b[31m" {
		t.Errorf("a name unfit for people is shown as %q", name)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err == nil {
		t.Error("the stream goes on")
	}
	callsAs(one, sanitize("one\x1b[31m")) // the same Envoy, between two streams
}
