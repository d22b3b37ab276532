package envoy

import (
	"fmt"
	"net/netip"
	"time"

	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	router "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
)

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
		Headers:       []*route.HeaderMatcher{exactly(":method", "GET")},
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
