package envoy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushosts "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/tailxds/tailxds/internal/policy"
	"github.com/tailxds/tailxds/internal/topology"
)

// names are those of all services.
func names(t topology.Topology) []string {
	all := make([]string, len(t.Services))
	for i, s := range t.Services {
		all[i] = s.Name
	}
	return all
}

// routing makes the routes of virtual hosts.
type routing struct {
	policy   policy.Policy
	known    map[string]bool // services that have a cluster
	previous *anypb.Any      // the predicate that keeps retries from servers that failed
}

func newRouting(in sharedInput) (routing, error) {
	previous, err := anypb.New(&previoushosts.PreviousHostsPredicate{})
	if err != nil {
		return routing{}, fmt.Errorf("pack retry predicate: %w", err)
	}
	return routing{policy: in.policy, known: in.known(), previous: previous}, nil
}

// of are the routes under a service's name: its rules in their order, and then
// the service itself.
func (r routing) of(service string) []*route.Route {
	var all []*route.Route
	rules := r.policy.For(service).Routes
	if slices.ContainsFunc(rules, func(rule policy.RouteRule) bool { return rule.Path != "" }) {
		all = append(all, refuseHidden(service))
	}
	for i, rule := range rules {
		services, until := rule.Shares()
		for j, target := range services {
			all = append(all, r.to(target, fmt.Sprintf("%s-%d-%s", service, i, target), routeMatch(rule, until[j]))...)
		}
	}
	return append(all, r.to(service, service, routeMatch(policy.RouteRule{}, policy.Million))...)
}

// routeMatch is what a rule asks of a request, and of Envoy's draw.
func routeMatch(r policy.RouteRule, until uint32) *route.RouteMatch {
	m := &route.RouteMatch{PathSpecifier: &route.RouteMatch_Prefix{Prefix: "/"}}
	if r.Path != "" {
		pattern, _ := policy.PathPattern(r.Path)
		m.PathSpecifier = pathMatching(pattern)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		m.Headers = append(m.Headers, exactly(name, r.Headers[name]))
	}
	if until < policy.Million {
		m.RuntimeFraction = &core.RuntimeFractionalPercent{
			DefaultValue: &typev3.FractionalPercent{Numerator: until, Denominator: typev3.FractionalPercent_MILLION},
		}
	}
	return m
}

func exactly(header, value string) *route.HeaderMatcher {
	return &route.HeaderMatcher{Name: header, HeaderMatchSpecifier: &route.HeaderMatcher_StringMatch{StringMatch: &matcher.StringMatcher{
		MatchPattern: &matcher.StringMatcher_Exact{Exact: value},
	}}}
}

// to are the routes of what matches to a service, treated as that service wants
// it. What can't go there goes nowhere else.
func (r routing) to(service, name string, match *route.RouteMatch) []*route.Route {
	p := r.policy.For(service)
	switch {
	case !r.known[service]:
		return []*route.Route{answer(name, match, 503, fmt.Sprintf("nobody serves %s, and the policy does not name it", service))}
	case p.Protocol == policy.TCP:
		return []*route.Route{answer(name, match, 503, fmt.Sprintf("%s takes TCP connections on port %d", service, p.Listen))}
	}
	var all []*route.Route
	// One route a method: a regular expression costs each request some percent.
	for _, method := range safeMethods() {
		safe := &route.RouteMatch{
			PathSpecifier: match.GetPathSpecifier(), RuntimeFraction: match.GetRuntimeFraction(),
			Headers: append(slices.Clone(match.GetHeaders()), exactly(":method", method)),
		}
		all = append(all, &route.Route{
			Name: name + "-" + strings.ToLower(method), Match: safe, Action: r.action(service, p, retrySafe), ResponseHeadersToAdd: servedBy(p),
			RequestBodyBufferLimit: retryBuffer(p),
		})
	}
	return append(all, &route.Route{
		Name: name, Match: match, Action: r.action(service, p, retryAnything), ResponseHeadersToAdd: servedBy(p),
		RequestBodyBufferLimit: retryBuffer(p),
	})
}

// retryBuffer is how much of a body Envoy keeps to send it again. Without retries it
// keeps nothing.
func retryBuffer(p policy.Service) *wrapperspb.UInt64Value {
	if p.Retries == 0 {
		return nil
	}
	return wrapperspb.UInt64(uint64(p.RetryBuffer))
}

// action sends a request to a service, and once more to another of its servers
// if that may be done.
func (r routing) action(service string, p policy.Service, retryOn string) *route.Route_Route {
	action := &route.RouteAction{
		ClusterSpecifier: &route.RouteAction_Cluster{Cluster: service},
		Timeout:          protoDuration(p.Timeout),
		IdleTimeout:      protoDuration(p.StreamIdleTimeout), // 0 is said, too: Envoy has 5 minutes unless told
		HashPolicy:       hashPolicies(p.HashOn),
	}
	if p.Retries > 0 {
		action.RetryPolicy = &route.RetryPolicy{
			RetryOn:    retryOn,
			NumRetries: wrapperspb.UInt32(p.Retries),
			RetryHostPredicate: []*route.RetryPolicy_RetryHostPredicate{{
				Name:       "envoy.retry_host_predicates.previous_hosts",
				ConfigType: &route.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: r.previous},
			}},
			HostSelectionRetryMaxAttempts: 5,
		}
		if p.AttemptTimeout > 0 {
			action.RetryPolicy.PerTryTimeout = protoDuration(p.AttemptTimeout)
		}
	}
	return &route.Route_Route{Route: action}
}

// hashPolicies are what Envoy hashes of a request.
func hashPolicies(h policy.HashOn) []*route.RouteAction_HashPolicy {
	switch {
	case h.Header != "":
		return []*route.RouteAction_HashPolicy{{PolicySpecifier: &route.RouteAction_HashPolicy_Header_{
			Header: &route.RouteAction_HashPolicy_Header{HeaderName: h.Header},
		}}}
	case h.Cookie != "":
		return []*route.RouteAction_HashPolicy{{PolicySpecifier: &route.RouteAction_HashPolicy_Cookie_{
			Cookie: &route.RouteAction_HashPolicy_Cookie{Name: h.Cookie, Path: "/", Ttl: durationpb.New(0)},
		}}}
	case h.Source:
		return []*route.RouteAction_HashPolicy{{PolicySpecifier: &route.RouteAction_HashPolicy_ConnectionProperties_{
			ConnectionProperties: &route.RouteAction_HashPolicy_ConnectionProperties{SourceIp: true},
		}}}
	default:
		return nil
	}
}
