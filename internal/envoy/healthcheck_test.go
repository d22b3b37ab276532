package envoy

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

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

func TestAServiceIsCheckedAsItSpeaksOrAsThePolicySays(t *testing.T) {
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
func TestStatusesAreNotShared(t *testing.T) {
	p := mustParse(t, "defaults: {health_check: {expected_statuses: [201, 202]}}\nservices: {a: {health_check: {expected_statuses: [204]}}, b: {}}")
	for service, want := range map[string]int{"a": 1, "b": 2, "c": 2} {
		if got := p.For(service).HealthCheck.ExpectedStatuses; len(got) != want || got[0].First == 201 != (want == 2) {
			t.Errorf("%s: %v", service, got)
		}
	}
}
