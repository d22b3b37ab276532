package envoy

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/tailxds/tailxds/internal/policy"
	"github.com/tailxds/tailxds/internal/topology/topologytest"
)

// checkOf is how a policy's servers are checked, and at which port.
func checkOf(t *testing.T, policy string) (*core.HealthCheck, uint32) {
	t.Helper()
	built := mustBuild(t, topologytest.OneService(), mustParse(t, policy), nil)
	all := built.all[Eds]["server"].(*endpoint.ClusterLoadAssignment).GetEndpoints()
	port := all[0].GetLbEndpoints()[0].GetEndpoint().GetHealthCheckConfig().GetPortValue()
	return built.all[Cds]["server"].(*cluster.Cluster).GetHealthChecks()[0], port
}

func TestHealthCheck_protocols_areChecked(t *testing.T) {
	for policy, want := range map[string]*core.HealthCheck{
		"": {HealthChecker: &core.HealthCheck_HttpHealthCheck_{HttpHealthCheck: &core.HealthCheck_HttpHealthCheck{Host: "server", Path: "/healthz"}}},
		"defaults: {protocol: http2, health_check: {path: /up, expected_statuses: [200, 204-206]}}": {
			HealthChecker: &core.HealthCheck_HttpHealthCheck_{HttpHealthCheck: &core.HealthCheck_HttpHealthCheck{
				Host: "server", Path: "/up", CodecClientType: typev3.CodecClientType_HTTP2, ExpectedStatuses: []*typev3.Int64Range{{Start: 200, End: 201}, {Start: 204, End: 207}},
			}},
		},
		"defaults: {protocol: grpc, health_check: {service: a.B}}": {
			HealthChecker: &core.HealthCheck_GrpcHealthCheck_{GrpcHealthCheck: &core.HealthCheck_GrpcHealthCheck{ServiceName: "a.B", Authority: "server"}},
		},
		"defaults: {protocol: http2, health_check: {protocol: grpc}}": {
			HealthChecker: &core.HealthCheck_GrpcHealthCheck_{GrpcHealthCheck: &core.HealthCheck_GrpcHealthCheck{Authority: "server"}},
		},
		"defaults: {protocol: grpc, health_check: {protocol: http1, expected_statuses: [503]}}": {
			HealthChecker: &core.HealthCheck_HttpHealthCheck_{HttpHealthCheck: &core.HealthCheck_HttpHealthCheck{
				Host: "server", Path: "/healthz", ExpectedStatuses: []*typev3.Int64Range{{Start: 503, End: 504}},
			}},
		},
		"defaults: {health_check: {protocol: tcp}}": {
			HealthChecker: &core.HealthCheck_TcpHealthCheck_{TcpHealthCheck: &core.HealthCheck_TcpHealthCheck{}},
		},
		"services: {server: {protocol: tcp, listen: 5432}}": {
			HealthChecker: &core.HealthCheck_TcpHealthCheck_{TcpHealthCheck: &core.HealthCheck_TcpHealthCheck{}},
		},
		"services: {server: {protocol: tcp, listen: 5432, health_check: {protocol: http1, path: /primary}}}": {
			HealthChecker: &core.HealthCheck_HttpHealthCheck_{HttpHealthCheck: &core.HealthCheck_HttpHealthCheck{Host: "server", Path: "/primary"}},
		},
	} {
		got, port := checkOf(t, policy)
		if !proto.Equal(&core.HealthCheck{HealthChecker: got.HealthChecker}, want) {
			t.Errorf("%q is checked by %v, want %v", policy, got, want)
		}
		if port != 0 {
			t.Errorf("%q is checked at port %d", policy, port)
		}
	}
	if _, port := checkOf(t, "defaults: {health_check: {port: 8008}}"); port != 8008 {
		t.Errorf("checked at port %d", port)
	}
}

// Frameworks that know their hosts answer 400 to a check by another.
func TestHealthCheck_hostsOfTheService_areTheHostOfChecks(t *testing.T) {
	for policy, want := range map[string]string{
		"": "server",
		"services: {server: {hosts: ['*.example.com', App.example.com, b.example.com]}}":            "app.example.com",
		"services: {server: {hosts: ['*.example.com']}}":                                            "server",
		"services: {server: {hosts: [a.example.com], health_check: {host: 'localhost:3000'}}}":      "localhost:3000",
		"defaults: {health_check: {host: 127.0.0.1}}\nservices: {server: {hosts: [a.example.com]}}": "127.0.0.1",
	} {
		got, _ := checkOf(t, policy)
		if host := got.GetHttpHealthCheck().GetHost(); host != want {
			t.Errorf("%q: checked with host %q, want %q", policy, host, want)
		}
		got, _ = checkOf(t, strings.NewReplacer("server: {", "server: {protocol: grpc, ", "defaults: {", "defaults: {protocol: grpc, ").Replace(policy))
		if authority := got.GetGrpcHealthCheck().GetAuthority(); policy != "" && authority != want {
			t.Errorf("%q over gRPC: checked with authority %q, want %q", policy, authority, want)
		}
	}
}

// The statuses of the defaults are not those of a service that names its own,
// nor the other way round.
func TestHealthCheck_statuses_areNotShared(t *testing.T) {
	p := mustParse(t, "defaults: {health_check: {expected_statuses: [201, 202]}}\nservices: {a: {health_check: {expected_statuses: [204]}}, b: {}}")
	for service, want := range map[string]int{"a": 1, "b": 2, "c": 2} {
		if got := p.For(service).HealthCheck.ExpectedStatuses; len(got) != want || got[0].First == 201 != (want == 2) {
			t.Errorf("%s: %v", service, got)
		}
	}
}

func TestCheckInterval_envoysAndServers_bounded(t *testing.T) {
	for _, c := range []struct {
		envoys int
		last   time.Duration
		want   time.Duration
	}{
		{0, 0, time.Second},
		{50, 0, time.Second},
		{51, time.Second, 2 * time.Second},
		{100, time.Second, 2 * time.Second},
		{101, time.Second, 4 * time.Second},
		{1_000, 0, 32 * time.Second},
		{1_000, time.Hour, 32 * time.Second},
		// Half as many as the shorter one bears, or it stays.
		{50, 2 * time.Second, 2 * time.Second},
		{26, 2 * time.Second, 2 * time.Second},
		{25, 2 * time.Second, time.Second},
		{401, 32 * time.Second, 32 * time.Second},
		{400, 32 * time.Second, 8 * time.Second},
		{1_000_000, 0, time.Hour},
		{1_000_000, time.Hour, time.Hour},
	} {
		if got := checkEvery(c.envoys, c.last); got != c.want {
			t.Errorf("%d Envoys after %v: every %v, want %v", c.envoys, c.last, got, c.want)
		}
	}
}

func TestCheckInterval_randomRuns_neitherTooOftenNorFlapping(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c Checks
		for range 50 {
			n := rapid.IntRange(0, 100_000).Draw(t, "envoys")
			before := c
			c = c.next(n, rapid.IntRange(0, n).Draw(t, "connected"))
			if rate := float64(n) / c.Every.Seconds(); rate > maxChecksPerSecond {
				t.Fatalf("%d Envoys check each server %v times a second", n, rate)
			}
			// Nobody is left with one that is far longer than it must be.
			if c.Every > minInterval && float64(n) < maxChecksPerSecond*c.Every.Seconds()/4 {
				t.Fatalf("%d Envoys check every %v only", n, c.Every)
			}
			// Around any number, a quarter more or less changes it once at most.
			for _, m := range []int{n - n/4, n} {
				if again := c.next(m, 0); again.Every != c.Every && before.Every == again.Every {
					t.Fatalf("%d and %d Envoys: %v, %v, %v", n, m, before.Every, c.Every, again.Every)
				}
			}
		}
	})
}

// A thousand Envoys check a thousand servers for ten minutes, each by its own
// clock and with Envoy's jitter. All servers are alike, so one is looked at.
func TestCheckInterval_thousandByThousand_isBounded(t *testing.T) {
	const envoys, minutes = 1_000, 10
	every := Checks{}.next(envoys, envoys).Every
	random := rand.New(rand.NewPCG(1, 2))
	var checks [minutes * 60]int // a second
	for range envoys {
		at := time.Duration(random.Int64N(int64(every)))
		for ; at < minutes*time.Minute; at += every + time.Duration(random.Int64N(int64(every)/10)) {
			checks[at/time.Second]++
		}
	}
	sum, most := 0, 0
	for _, n := range checks {
		sum += n
		most = max(most, n)
	}
	mean := float64(sum) / float64(len(checks))
	if mean > maxChecksPerSecond || most > 2*maxChecksPerSecond || mean < maxChecksPerSecond/4 {
		t.Errorf("a server is checked %.1f times a second, and up to %d; want up to %d, and hardly ever twice that", mean, most, maxChecksPerSecond)
	}
}

// interval is what Envoys are told of a service.
func interval(t *testing.T, built *Resources, service string) time.Duration {
	t.Helper()
	c, ok := built.All(Cds)[service].(*cluster.Cluster)
	if !ok {
		t.Fatalf("there is no cluster %s", service)
	}
	return c.GetHealthChecks()[0].GetInterval().AsDuration()
}

func TestBuild_intervalLeftOpen_followsTheDevices(t *testing.T) {
	devices := map[string][]string{}
	for i := range 101 {
		devices[fmt.Sprintf("d%d", i)] = []string{"tag:weight-1"}
	}
	p := mustParse(t, "services:\n  fixed:\n    health_check: {interval: 3s}\n")
	built := mustBuild(t, topologytest.Of(devices), p, nil)
	if got := interval(t, built, "server"); got != 4*time.Second || built.Checks() != (Checks{101, 4 * time.Second}) {
		t.Errorf("101 devices check every %v; %+v", got, built.Checks())
	}
	if got := interval(t, built, "fixed"); got != 3*time.Second {
		t.Errorf("an interval of 3 s became %v", got)
	}
	if p.Defaults.HealthCheck.Interval != policy.AutoInterval {
		t.Error("the policy itself was changed")
	}
	if got := interval(t, mustBuild(t, topologytest.OneService(), p, built), "server"); got != time.Second {
		t.Errorf("with few devices it is %v", got)
	}
}

func TestBuild_moreEnvoysThanDevices_countForTheInterval(t *testing.T) {
	built, err := Build(Input{Topology: topologytest.OneService(), Policy: policy.Default(), DefaultService: "server", Envoys: 51}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := built.Checks(); got != (Checks{51, 2 * time.Second}) {
		t.Errorf("%+v", got)
	}
}

func TestInterval_text_isAutoOrDuration(t *testing.T) {
	for text, want := range map[string]policy.Interval{"auto": policy.AutoInterval, "100ms": policy.Interval(100 * time.Millisecond)} {
		p, err := policy.Parse([]byte("defaults:\n  health_check:\n    interval: " + text + "\n"))
		if err != nil || p.Defaults.HealthCheck.Interval != want {
			t.Errorf("%s is read as %v, %v", text, p.Defaults.HealthCheck.Interval, err)
		}
	}
	for _, text := range []string{"0s", "often", "2h", "-1s"} {
		if _, err := policy.Parse([]byte("defaults:\n  health_check:\n    interval: " + text + "\n")); err == nil {
			t.Errorf("%s was taken", text)
		}
	}
}
