package xds

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushosts "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/tailxds/tailxds/internal/topology"
)

// Requests that are safe to repeat are retried also after a server may have
// seen them; the others only while none can have.
const (
	retrySafe     = "connect-failure,refused-stream,reset,gateway-error"
	retryAnything = "connect-failure,refused-stream,reset-before-request"
)

// safeMethods are those that may be repeated, the usual one first.
// https://www.rfc-editor.org/rfc/rfc9110#section-9.2.1
func safeMethods() []string { return []string{"GET", "HEAD", "OPTIONS"} }

// buildRoutes gives every service a virtual host under its name. The default
// service takes what no other claims.
func buildRoutes(t topology.Topology, p Policy, defaultService string) ([]proto.Message, error) {
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
		config.VirtualHosts = append(config.VirtualHosts, &route.VirtualHost{Name: s.Name, Domains: domains, Routes: routes, ResponseHeadersToAdd: servedBy(policy)})
	}
	return []proto.Message{config}, checkDomains(config)
}

// checkDomains holds the routes to the one rule of Envoy's that its validation
// code does not know: no domain stands twice.
func checkDomains(config *route.RouteConfiguration) error {
	owner := make(map[string]string)
	for _, v := range config.GetVirtualHosts() {
		for _, domain := range v.GetDomains() {
			if first, taken := owner[domain]; taken {
				return fmt.Errorf("the domain %s belongs to both %s and %s", domain, first, v.GetName())
			}
			owner[domain] = v.GetName()
		}
	}
	return nil
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
	if p.Protocol == TCP {
		// Its name is its own all the same, and never another service's.
		return []*route.Route{{
			Name: service, Match: &route.RouteMatch{PathSpecifier: &route.RouteMatch_Prefix{Prefix: "/"}},
			Action: &route.Route_DirectResponse{DirectResponse: &route.DirectResponseAction{
				Status: 503,
				Body:   &core.DataSource{Specifier: &core.DataSource_InlineString{InlineString: fmt.Sprintf("%s takes TCP connections on port %d\n", service, p.Listen)}},
			}},
		}}, nil
	}
	previous, err := anypb.New(&previoushosts.PreviousHostsPredicate{})
	if err != nil {
		return nil, fmt.Errorf("pack retry predicate: %w", err)
	}
	to := func(retryOn string) *route.Route_Route {
		action := &route.RouteAction{
			ClusterSpecifier: &route.RouteAction_Cluster{Cluster: service},
			Timeout:          p.Timeout.proto(),
			HashPolicy:       p.HashOn.policies(),
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
			if p.AttemptTimeout > 0 {
				action.RetryPolicy.PerTryTimeout = p.AttemptTimeout.proto()
			}
		}
		return &route.Route_Route{Route: action}
	}
	prefix := &route.RouteMatch_Prefix{Prefix: "/"}
	var all []*route.Route
	// One route a method: a regular expression costs each request some percent.
	for _, method := range safeMethods() {
		all = append(all, &route.Route{
			Name: service + "-" + strings.ToLower(method), Action: to(retrySafe),
			Match: &route.RouteMatch{PathSpecifier: prefix, Headers: []*route.HeaderMatcher{{
				Name: ":method",
				HeaderMatchSpecifier: &route.HeaderMatcher_StringMatch{StringMatch: &matcher.StringMatcher{
					MatchPattern: &matcher.StringMatcher_Exact{Exact: method},
				}},
			}}},
		})
	}
	return append(all, &route.Route{Name: service, Match: &route.RouteMatch{PathSpecifier: prefix}, Action: to(retryAnything)}), nil
}

// servedBy tells a client who answered, if the policy wants it told.
func servedBy(p ServicePolicy) []*core.HeaderValueOption {
	if !p.ShowEndpoint {
		return nil
	}
	return []*core.HeaderValueOption{{
		Header:       &core.HeaderValue{Key: "x-tailxds-endpoint", Value: "%UPSTREAM_HOST_NAME%"},
		AppendAction: core.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD, // what a server claims counts for nothing
	}}
}
