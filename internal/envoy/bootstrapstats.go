package envoy

import (
	"fmt"
	"net/netip"
	"time"

	xdscore "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcher "github.com/cncf/xds/go/xds/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	metrics "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	router "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	statsinput "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/stats/v3"
	otel "github.com/envoyproxy/go-control-plane/envoy/extensions/stat_sinks/open_telemetry/v3"
	typematcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/tailxds/tailxds/internal/traffic"
)

// HostPort is a host name or an IP address, and a port.
type HostPort struct {
	Host string
	Port uint16
}

// DefaultMetricsPort is where an Envoy shows its metrics, if asked to.
const DefaultMetricsPort = 9902

// adminPages is the name of the cluster that leads to Envoy's own pages.
const adminPages = "admin_pages"

// metricsPage is a listener that answers GET /metrics with what Prometheus
// scrapes, and shows nothing else of Envoy's own pages, which can stop it.
func metricsPage(at, admin HostPort) (*listener.Listener, *cluster.Cluster, error) {
	routing, err := anypb.New(&router.Router{})
	if err != nil {
		return nil, nil, fmt.Errorf("pack router: %w", err)
	}
	only := &route.RouteMatch{
		PathSpecifier: &route.RouteMatch_Path{Path: "/metrics"},
		Headers:       []*route.HeaderMatcher{exactHeader(":method", "GET")},
	}
	manager, err := anypb.New(&hcm.HttpConnectionManager{
		StatPrefix: "metrics",
		RouteSpecifier: &hcm.HttpConnectionManager_RouteConfig{RouteConfig: &route.RouteConfiguration{VirtualHosts: []*route.VirtualHost{{
			Name: "metrics", Domains: []string{"*"},
			Routes: []*route.Route{{Match: only, Action: &route.Route_Route{Route: &route.RouteAction{
				ClusterSpecifier: &route.RouteAction_Cluster{Cluster: adminPages},
				PrefixRewrite:    "/stats/prometheus",
			}}}},
		}}}},
		HttpFilters: []*hcm.HttpFilter{{Name: "envoy.filters.http.router", ConfigType: &hcm.HttpFilter_TypedConfig{TypedConfig: routing}}},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("pack connection manager: %w", err)
	}
	page := &listener.Listener{
		Name: "metrics", Address: socketAddress(at.Host, at.Port),
		FilterChains: []*listener.FilterChain{{Filters: []*listener.Filter{{
			Name: "envoy.filters.network.http_connection_manager", ConfigType: &listener.Filter_TypedConfig{TypedConfig: manager},
		}}}},
	}
	if a, err := netip.ParseAddr(admin.Host); err == nil && a.IsUnspecified() {
		admin.Host = "127.0.0.1" // it listens there, too
	}
	pages := &cluster.Cluster{
		Name:                 adminPages,
		ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_STATIC},
		ConnectTimeout:       durationpb.New(time.Second),
		LoadAssignment: &endpoint.ClusterLoadAssignment{ClusterName: adminPages, Endpoints: []*endpoint.LocalityLbEndpoints{{
			LbEndpoints: []*endpoint.LbEndpoint{{
				HostIdentifier: &endpoint.LbEndpoint_Endpoint{Endpoint: &endpoint.Endpoint{Address: socketAddress(admin.Host, admin.Port)}},
			}},
		}}},
	}
	return page, pages, nil
}

// usedMetrics are the names of the statistics that internal/report reads, as
// Envoy calls them before it makes tags of their parts.
const usedMetrics = `cluster\.[^.]+\.(upstream_rq_time|endpoint\..+\.(healthy|rq_total|rq_error|rq_active|cx_connect_fail))`

// usedMetricsMatcher keeps from an export what the control plane has no use for: most of
// some 200 statistics. Envoy itself, its own pages and other collectors keep
// them all, as they would not with a stats_matcher.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/extensions/stat_sinks/open_telemetry/v3/open_telemetry.proto
func usedMetricsMatcher() (*xdsmatcher.Matcher, error) {
	name, err := extension("name", &statsinput.StatFullNameMatchInput{})
	if err != nil {
		return nil, err
	}
	drop, err := extension("drop", &otel.SinkConfig_DropAction{})
	if err != nil {
		return nil, err
	}
	isUsed := &xdsmatcher.Matcher_MatcherList_Predicate{MatchType: &xdsmatcher.Matcher_MatcherList_Predicate_SinglePredicate_{
		SinglePredicate: &xdsmatcher.Matcher_MatcherList_Predicate_SinglePredicate{
			Input: name,
			Matcher: &xdsmatcher.Matcher_MatcherList_Predicate_SinglePredicate_ValueMatch{ValueMatch: &xdsmatcher.StringMatcher{
				MatchPattern: &xdsmatcher.StringMatcher_SafeRegex{SafeRegex: &xdsmatcher.RegexMatcher{
					EngineType: &xdsmatcher.RegexMatcher_GoogleRe2{GoogleRe2: &xdsmatcher.RegexMatcher_GoogleRE2{}}, Regex: usedMetrics,
				}},
			}},
		},
	}}
	return &xdsmatcher.Matcher{MatcherType: &xdsmatcher.Matcher_MatcherList_{MatcherList: &xdsmatcher.Matcher_MatcherList{
		Matchers: []*xdsmatcher.Matcher_MatcherList_FieldMatcher{{
			Predicate: &xdsmatcher.Matcher_MatcherList_Predicate{MatchType: &xdsmatcher.Matcher_MatcherList_Predicate_NotMatcher{NotMatcher: isUsed}},
			OnMatch:   &xdsmatcher.Matcher_OnMatch{OnMatch: &xdsmatcher.Matcher_OnMatch_Action{Action: drop}},
		}},
	}}}, nil
}

func extension(name string, config proto.Message) (*xdscore.TypedExtensionConfig, error) {
	packed, err := anypb.New(config)
	if err != nil {
		return nil, fmt.Errorf("pack %s of the OpenTelemetry sink: %w", name, err)
	}
	return &xdscore.TypedExtensionConfig{Name: name, TypedConfig: packed}, nil
}

// statsConfig has the time of requests counted in buckets as fine as those in
// which it is kept: Envoy's own begin with 0.5, 1, 5, 10, 25 ms.
func statsConfig() *metrics.StatsConfig {
	return &metrics.StatsConfig{HistogramBucketSettings: []*metrics.HistogramBucketSettings{{
		Match:   &typematcher.StringMatcher{MatchPattern: &typematcher.StringMatcher_Suffix{Suffix: ".upstream_rq_time"}},
		Buckets: traffic.Bounds(),
	}}}
}
