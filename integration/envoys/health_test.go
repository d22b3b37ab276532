package envoys_test

import (
	"context"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Servers are checked in the protocol, at the port and by the statuses that the
// policy names, whatever they speak besides.
func TestHealthCheck_ownProtocolAndPort_isUsed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	plain, status, db := r.Server("plain"), r.Server("status"), r.Server("db")
	speaker(t, db.Host) // connections at 5433
	asked := r.Host("asked")
	l, err := asked.Listen(":8080")
	if err != nil {
		t.Fatal(err)
	}
	server, answers := grpc.NewServer(), health.NewServer()
	healthpb.RegisterHealthServer(server, answers)
	go func() { _ = server.Serve(l) }() // until it is stopped
	t.Cleanup(server.Stop)

	control := r.ControlPlane(`
services:
  plain: {health_check: {protocol: tcp}}
  status: {health_check: {expected_statuses: [204, 500-503]}}
  db: {protocol: tcp, listen: 5432, health_check: {protocol: http1, port: 8080}}
  asked: {protocol: http2, health_check: {protocol: grpc, service: a.B}}
`, plain.Device("tag:service-plain"), status.Device("tag:service-status"), db.Device("tag:service-db", "tag:port-5433"), asked.Device("tag:service-asked"))

	plain.SetUnhealthy(true)  // by HTTP, by which nobody asks it
	status.SetUnhealthy(true) // 503, as is wanted
	db.SetUnhealthy(false)
	answers.SetServingStatus("a.B", healthpb.HealthCheckResponse_SERVING)
	entry := control.Envoy("entry")
	for _, service := range []string{"plain", "status", "db", "asked"} {
		entry.AwaitHealthy(service, 1)
	}

	status.SetUnhealthy(false) // 200, which is not wanted
	db.SetUnhealthy(true)
	answers.SetServingStatus("a.B", healthpb.HealthCheckResponse_NOT_SERVING)
	for service, healthy := range map[string]int{"plain": 1, "status": 0, "db": 0, "asked": 0} {
		entry.AwaitStats(map[string]int{"cluster." + service + ".membership_healthy": healthy, "cluster." + service + ".membership_total": 1})
	}
	if n := plain.Checked.Load(); n != 0 {
		t.Errorf("a server that is checked by TCP was asked %d times over HTTP", n)
	}
	if rejected := control.Rejected(); rejected != "" {
		t.Errorf("Envoy rejected: %s", rejected)
	}
}

// Servers that refuse hosts that they do not know pass their checks: by the first
// of the service's hosts, by its name, or by the host that the policy sets.
func TestHealthCheckHost_serverKnowsItsHostsOnly_isHealthy(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	shop, plain, named := r.Server("shop"), r.Server("plain"), r.Server("named")
	shop.AllowHost("shop.example.com")
	plain.AllowHost("plain")
	named.AllowHost("internal.example.com:8000")
	calls := r.Host("calls")
	l, err := calls.Listen(":8080")
	if err != nil {
		t.Fatal(err)
	}
	server, answers := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		if md, _ := metadata.FromIncomingContext(ctx); len(md[":authority"]) != 1 || md[":authority"][0] != "calls.example.com" {
			return nil, status.Errorf(codes.InvalidArgument, "unknown authority %v", md[":authority"])
		}
		return next(ctx, request)
	})), health.NewServer()
	answers.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(server, answers)
	go func() { _ = server.Serve(l) }() // until it is stopped
	t.Cleanup(server.Stop)

	control := r.ControlPlane(`
services:
  shop: {hosts: ["*.example.com", shop.example.com]}
  named: {health_check: {host: "internal.example.com:8000"}}
  calls: {protocol: grpc, hosts: [calls.example.com]}
`, shop.Device("tag:service-shop"), plain.Device("tag:service-plain"), named.Device("tag:service-named"), calls.Device("tag:service-calls"))
	entry := control.Envoy("entry")
	for _, service := range []string{"shop", "plain", "named", "calls"} {
		entry.AwaitHealthy(service, 1)
	}

	// The servers do refuse others.
	control.SetPolicy("{defaults: {health_check: {host: other.example.com}}, services: {calls: {protocol: grpc}}}")
	for _, service := range []string{"shop", "plain", "named", "calls"} {
		entry.AwaitStats(map[string]int{"cluster." + service + ".membership_healthy": 0, "cluster." + service + ".membership_total": 1})
	}
}
