package envoys_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/tailxds/tailxds/integration/harness"
)

func TestHealthCheck_http2_speaksHTTP2(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.ServerSpeaking("a", func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) })
	entry := r.ControlPlane("defaults: {protocol: http2}", a.Device("tag:weight-1")).Envoy("entry")
	entry.AwaitHealthy("server", 1)
	if tally := entry.Ask(100, harness.Get(entry.URL(10000), "")); tally.Failed > 0 {
		t.Errorf("%d requests failed: %s", tally.Failed, tally.Reasons)
	}
}

// serveGRPC serves gRPC's health service on a host, and returns what it says.
func serveGRPC(t *testing.T, h *harness.Host) *health.Server {
	t.Helper()
	l, err := h.Listen(fmt.Sprintf(":%d", harness.ServerPort))
	if err != nil {
		t.Fatal(err)
	}
	server, says := grpc.NewServer(), health.NewServer()
	grpc_health_v1.RegisterHealthServer(server, says)
	go func() { _ = server.Serve(l) }() // until it is stopped
	t.Cleanup(server.Stop)
	return says
}

// gRPC servers are asked for the health of the service that the policy names,
// and calls go through.
func TestHealthCheck_grpc_usesHealthService(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, b := r.Host("a"), r.Host("b")
	saysA, saysB := serveGRPC(t, a), serveGRPC(t, b)
	saysA.SetServingStatus("acme.Shop", grpc_health_v1.HealthCheckResponse_SERVING)
	saysB.SetServingStatus("acme.Shop", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	policy := "services: {shop: {protocol: grpc, health_check: {service: acme.Shop, interval: 200ms}}}"
	entry := r.ControlPlane(policy, a.Device("tag:service-shop"), b.Device("tag:service-shop")).Envoy("entry")
	entry.AwaitStats(map[string]int{"cluster.shop.membership_healthy": 1, "cluster.shop.membership_total": 2})

	laptop := r.Host("laptop")
	conn, err := grpc.NewClient("passthrough:///"+net.JoinHostPort(entry.V4.String(), "10000"), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("shop"), grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return laptop.Dial(ctx, "tcp", address) }))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 20 {
		answer, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "acme.Shop"})
		if err != nil || answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Fatalf("a call through Envoy: %v, %v; want the answer of the server that serves", answer, err)
		}
	}

	saysB.SetServingStatus("acme.Shop", grpc_health_v1.HealthCheckResponse_SERVING)
	entry.AwaitHealthy("shop", 2)
}

// One failure among thousands is an outlier by the statistics of five servers,
// and no reason to lose one.
func TestOutlierDetection_oneFailureAmongThousands_ejectsNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var devices []harness.Device
	var servers []*harness.Server
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		servers = append(servers, r.Server(name))
		devices = append(devices, servers[len(servers)-1].Device("tag:weight-1"))
	}
	e := servers[4]
	e.Handle(func(w http.ResponseWriter, _ *http.Request) {
		if e.Served.Load()%1000 == 500 {
			http.Error(w, "once", http.StatusInternalServerError)
			return
		}
		e.Hello(w)
	})
	entry := r.ControlPlane("", devices...).Envoy("entry")
	entry.AwaitHealthy("server", 5)
	load := r.Host("laptop").Flow(16, harness.Get(entry.URL(10000), ""))
	// Envoy has noticed, so that there was something to leave undone.
	entry.AwaitNonzero("cluster.server.outlier_detection.ejections_detected_success_rate")
	tally := load.Stop()
	t.Logf("%d requests answered, %d failed", tally.Answered(), tally.Failed)
	if tally.Answered() < 1000 || tally.Failed == 0 {
		t.Errorf("%d requests answered, %d failed: not the case that is meant", tally.Answered(), tally.Failed)
	}
	entry.AwaitStats(map[string]int{"cluster.server.outlier_detection.ejections_enforced_total": 0, "cluster.server.outlier_detection.ejections_active": 0})
}

// A server that passes its checks and fails its requests is ejected for as long
// as the policy says, and then tried again.
func TestOutlierDetection_failingServer_isEjected(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, b := r.Server("a"), r.Server("b")
	b.Handle(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "broken", http.StatusInternalServerError) })
	const ejection = 3 * time.Second
	policy := fmt.Sprintf("defaults: {health_check: {interval: 100ms}, outlier_detection: {consecutive_5xx: 5, base_ejection_time: %s}}", ejection)
	entry := r.ControlPlane(policy, a.Device("tag:weight-1"), b.Device("tag:weight-1")).Envoy("entry")
	entry.AwaitHealthy("server", 2)
	start := time.Now()
	load := r.Host("laptop").Flow(2, harness.Get(entry.URL(10000), ""))
	entry.AwaitNonzero("cluster.server.outlier_detection.ejections_enforced_consecutive_5xx")
	load.AwaitMore(r, 20) // what was under way has come to its end
	failed := b.Served.Load()
	if failed > 20 {
		t.Errorf("%d requests failed before the ejection, want about 5", failed)
	}
	checks := entry.Stat("cluster.server.health_check.success")
	r.Await("both pass some more checks", func() error {
		if n := entry.Stat("cluster.server.health_check.success"); n < checks+8 {
			return fmt.Errorf("%d checks", n-checks)
		}
		return nil
	})
	active, more := entry.Stat("cluster.server.outlier_detection.ejections_active"), b.Served.Load()-failed
	if took := time.Since(start); took < ejection && (active != 1 || more > 0) {
		t.Errorf("%s after the start, %d servers are ejected and the one got %d requests, because it passes its checks", took, active, more)
	}
	b.Handle(func(w http.ResponseWriter, _ *http.Request) { b.Hello(w) })
	entry.AwaitStats(map[string]int{"cluster.server.outlier_detection.ejections_active": 0})
	r.Await("the server is tried again", func() error {
		if b.Served.Load() == failed {
			return fmt.Errorf("no request since")
		}
		return nil
	})
	load.Stop()
}

// The limits are what the policy says, high by default, and they act.
func TestLimits_highByDefault_actWhenSet(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.Server("a")
	release := make(chan struct{})
	a.Handle(func(http.ResponseWriter, *http.Request) { <-release })
	control := r.ControlPlane("", a.Device("tag:weight-1"))
	entry := control.Envoy("entry")
	entry.AwaitHealthy("server", 1)
	limits := func(connections, pending, requests int) func() error {
		return func() error {
			page, err := entry.Admin("/clusters")
			for name, n := range map[string]int{"connections": connections, "pending_requests": pending, "requests": requests} {
				if line := fmt.Sprintf("server::default_priority::max_%s::%d\n", name, n); err == nil && !strings.Contains(page, line) {
					err = fmt.Errorf("no line %q", line)
				}
			}
			return err
		}
	}
	if err := limits(100000, 100000, 100000)(); err != nil {
		t.Error(err)
	}
	control.SetPolicy("defaults: {limits: {connections: 5000, requests: 2}}")
	r.Await("the limits act", limits(5000, 100000, 2))

	laptop := r.Host("laptop")
	load := laptop.Flow(2, harness.Get(entry.URL(10000), ""))
	r.Await("two requests are in flight", func() error {
		if n := a.Served.Load(); n != 2 {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
	if status, body, err := laptop.Once(harness.Get(entry.URL(10000), "")); err != nil || status != http.StatusServiceUnavailable || !strings.Contains(body, "overflow") {
		t.Errorf("one request too many: %d %s, %v", status, body, err)
	}
	close(release)
	if tally := load.Stop(); tally.Failed > 0 {
		t.Errorf("%d of the others failed: %s", tally.Failed, tally.Reasons)
	}
}

// One URL that always answers 500 ejects no server. Answers of 503 eject, and so
// do connections that fail.
func TestOutlierDetection_oneURLAnswers500_ejectsNoServer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var devices []harness.Device
	var servers []*harness.Server
	broken := func(s *harness.Server) http.HandlerFunc {
		return func(w http.ResponseWriter, q *http.Request) {
			if q.URL.Path == "/broken" {
				http.Error(w, "always", http.StatusInternalServerError)
				return
			}
			s.Hello(w)
		}
	}
	for _, name := range []string{"a", "b", "c", "d"} {
		s := r.Server(name)
		s.Handle(broken(s))
		servers, devices = append(servers, s), append(devices, s.Device("tag:weight-1"))
	}
	control := r.ControlPlane("defaults: {outlier_detection: {base_ejection_time: 1h}, health_check: {port: 8080}}", devices...)
	entry := control.Envoy("entry")
	entry.AwaitHealthy("server", 4)
	laptop := r.Host("laptop")
	const outliers = "cluster.server.outlier_detection."
	if tally := laptop.Ask(100, harness.Get(entry.URL(10000)+"broken", "")); tally.Failed != 100 {
		t.Errorf("%d of 100 requests failed", tally.Failed)
	}
	// Envoy has noticed, so that there was something to leave undone.
	entry.AwaitNonzero(outliers + "ejections_detected_consecutive_5xx")
	entry.AwaitStats(map[string]int{outliers + "ejections_enforced_total": 0, outliers + "ejections_active": 0})
	if tally := laptop.Ask(100, harness.Get(entry.URL(10000), "")); tally.Failed > 0 || len(tally.Counts) != 4 {
		t.Errorf("%v answered, %d failed: %s", tally.Counts, tally.Failed, tally.Reasons)
	}

	away := func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "away", http.StatusServiceUnavailable) }
	servers[3].Handle(away)
	load := laptop.Flow(4, harness.Get(entry.URL(10000), ""))
	entry.AwaitStats(map[string]int{outliers + "ejections_enforced_consecutive_gateway_failure": 1, outliers + "ejections_active": 1})
	servers[3].Handle(broken(servers[3]))

	// Requests go to a port at which nothing listens; checks go to another.
	refusing := r.Server("refusing")
	control.SetDevices(append(devices, refusing.Device("tag:weight-1", "tag:port-8081"))...)
	entry.AwaitStats(map[string]int{outliers + "ejections_enforced_consecutive_local_origin_failure": 1, outliers + "ejections_active": 2})
	if tally := load.Stop(); tally.Failed > 0 {
		t.Errorf("%d of %d requests failed: %s", tally.Failed, tally.Failed+tally.Answered(), tally.Reasons)
	}
}
