package controlplane

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tailxds/tailxds/internal/api"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/traffic"
)

func TestTrafficMetrics_tables_areExposed(t *testing.T) {
	server := func(name, address string, healthy int) traffic.Server {
		return traffic.Server{Endpoint: topology.Endpoint{Name: name, Address: netip.MustParseAddrPort(address)}, Expected: 0.25, Observed: 0.5, Reporting: 1, Healthy: healthy}
	}
	m := newTrafficMetrics(func() api.Traffic {
		return api.Traffic{Envoys: []traffic.Envoy{{}, {Stale: true}}, Services: []traffic.Table{{
			Service: "s", Requests: 10, Errors: 1, Crossing: 0.3,
			Servers: []traffic.Server{server("a", "100.64.0.1:80", 1), server("b", "100.64.0.2:80", 0), server("b", "100.64.0.2:80", 0)},
		}}}
	})
	want := `
# HELP tailxds_endpoint_share_ratio Share of the service's requests, by kind: expected or observed.
# TYPE tailxds_endpoint_share_ratio gauge
tailxds_endpoint_share_ratio{address="100.64.0.1:80",device="a",kind="expected",service="s"} 0.25
tailxds_endpoint_share_ratio{address="100.64.0.1:80",device="a",kind="observed",service="s"} 0.5
tailxds_endpoint_share_ratio{address="100.64.0.2:80",device="b",kind="expected",service="s"} 0.25
tailxds_endpoint_share_ratio{address="100.64.0.2:80",device="b",kind="observed",service="s"} 0.5
# HELP tailxds_endpoints_unhealthy Serving endpoints that every Envoy which reports finds unhealthy.
# TYPE tailxds_endpoints_unhealthy gauge
tailxds_endpoints_unhealthy{service="s"} 2
# HELP tailxds_envoys_reporting Envoys that reported of late what they measured.
# TYPE tailxds_envoys_reporting gauge
tailxds_envoys_reporting 1
# HELP tailxds_service_crossing_ratio Share of the requests that were sent to another region than they entered in.
# TYPE tailxds_service_crossing_ratio gauge
tailxds_service_crossing_ratio{service="s"} 0.3
# HELP tailxds_service_errors_per_second Requests that failed: 5xx, a reset or a timeout.
# TYPE tailxds_service_errors_per_second gauge
tailxds_service_errors_per_second{service="s"} 1
# HELP tailxds_service_requests_per_second Requests to the service, of all Envoys that report.
# TYPE tailxds_service_requests_per_second gauge
tailxds_service_requests_per_second{service="s"} 10
`
	registry, page := prometheus.NewRegistry(), httptest.NewRecorder()
	registry.MustRegister(m)
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(page, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if got := page.Body.String(); strings.TrimSpace(got) != strings.TrimSpace(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
