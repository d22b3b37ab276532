package xds

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	router "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	previoushosts "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/tailxds/tailxds/internal/topology"
)

const (
	// Ingress is the name of the listener and of its route configuration.
	Ingress = "ingress"
	// IngressPort is where every Envoy takes requests.
	IngressPort = 10000
)

// Requests that are safe to repeat are retried also after a server may have
// seen them; the others only while none can have.
const (
	safeMethods   = "GET|HEAD|OPTIONS"
	retrySafe     = "connect-failure,refused-stream,reset,gateway-error"
	retryAnything = "connect-failure,refused-stream,reset-before-request"
)

// buildRoutes gives every service a virtual host under its name. The default
// service takes what no other claims.
func buildRoutes(t topology.Topology, p Policy, defaultService string) (proto.Message, error) {
	config := &route.RouteConfiguration{
		Name: Ingress,
		// hello:10000 is the same host as hello.
		IgnorePortInHostMatching: true,
	}
	claimed := claimedHosts(t, p)
	for _, s := range t.Services {
		policy := p.For(s.Name)
		domains := []string{s.Name, s.Name + ".*"}
		if s.Name == defaultService {
			domains = []string{"*"}
		}
		for _, host := range policy.Hosts {
			if claimed[host] == s.Name {
				domains = append(domains, host)
			}
		}
		routes, err := buildServiceRoutes(s.Name, policy)
		if err != nil {
			return nil, fmt.Errorf("routes of service %s: %w", s.Name, err)
		}
		config.VirtualHosts = append(config.VirtualHosts, &route.VirtualHost{Name: s.Name, Domains: domains, Routes: routes})
	}
	return config, nil
}

// claimedHosts leaves out a configured host that is the name of a service:
// Envoy takes no domain twice, and the service's own name goes first.
func claimedHosts(t topology.Topology, p Policy) map[string]string {
	claimed := make(map[string]string)
	for _, s := range t.Services {
		for _, host := range p.For(s.Name).Hosts {
			claimed[host] = s.Name
		}
	}
	for _, s := range t.Services {
		delete(claimed, s.Name)
	}
	return claimed
}

func buildServiceRoutes(service string, p ServicePolicy) ([]*route.Route, error) {
	previous, err := anypb.New(&previoushosts.PreviousHostsPredicate{})
	if err != nil {
		return nil, fmt.Errorf("pack retry predicate: %w", err)
	}
	to := func(retryOn string) *route.Route_Route {
		action := &route.RouteAction{
			ClusterSpecifier: &route.RouteAction_Cluster{Cluster: service},
			Timeout:          p.Timeout.proto(),
		}
		if p.Retries > 0 {
			action.RetryPolicy = &route.RetryPolicy{
				RetryOn:    retryOn,
				NumRetries: wrapperspb.UInt32(p.Retries),
				RetryHostPredicate: []*route.RetryPolicy_RetryHostPredicate{{
					Name:       "envoy.retry_host_predicates.previous_hosts",
					ConfigType: &route.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: previous},
				}},
				HostSelectionRetryMaxAttempts: 5,
			}
		}
		return &route.Route_Route{Route: action}
	}
	prefix := &route.RouteMatch_Prefix{Prefix: "/"}
	safe := &route.RouteMatch{PathSpecifier: prefix, Headers: []*route.HeaderMatcher{{
		Name: ":method",
		HeaderMatchSpecifier: &route.HeaderMatcher_StringMatch{StringMatch: &matcher.StringMatcher{
			MatchPattern: &matcher.StringMatcher_SafeRegex{SafeRegex: &matcher.RegexMatcher{Regex: safeMethods}},
		}},
	}}}
	return []*route.Route{
		{Name: service + "-safe", Match: safe, Action: to(retrySafe)},
		{Name: service, Match: &route.RouteMatch{PathSpecifier: prefix}, Action: to(retryAnything)},
	}, nil
}

// buildListener is the same for every topology: it takes requests on
// [IngressPort] and asks the routes where they go.
func buildListener(topology.Topology, Policy, string) (proto.Message, error) {
	routing, err := anypb.New(&router.Router{})
	if err != nil {
		return nil, fmt.Errorf("pack router: %w", err)
	}
	manager, err := anypb.New(&hcm.HttpConnectionManager{
		StatPrefix: Ingress,
		RouteSpecifier: &hcm.HttpConnectionManager_Rds{Rds: &hcm.Rds{
			RouteConfigName: Ingress, ConfigSource: fromADS(),
		}},
		HttpFilters: []*hcm.HttpFilter{{
			Name:       "envoy.filters.http.router",
			ConfigType: &hcm.HttpFilter_TypedConfig{TypedConfig: routing},
		}},
		// The client is who the tailnet says: its address goes into
		// x-forwarded-for, and Envoy's own headers are not taken from it.
		UseRemoteAddress: wrapperspb.Bool(true),
		UpgradeConfigs:   []*hcm.HttpConnectionManager_UpgradeConfig{{UpgradeType: "websocket"}},
	})
	if err != nil {
		return nil, fmt.Errorf("pack connection manager: %w", err)
	}
	return &listener.Listener{
		Name:    Ingress,
		Address: socketAddress("0.0.0.0", IngressPort),
		FilterChains: []*listener.FilterChain{{Filters: []*listener.Filter{{
			Name:       "envoy.filters.network.http_connection_manager",
			ConfigType: &listener.Filter_TypedConfig{TypedConfig: manager},
		}}}},
		TrafficDirection: core.TrafficDirection_INBOUND,
	}, nil
}
