package envoy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	previoushosts "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/tailxds/tailxds/internal/policy"
)

// IngressListener is the name of the listener on IPv4, and of its routes.
const IngressListener = "ingress"

// routeBuilder makes the routes of virtual hosts.
type routeBuilder struct {
	policy   policy.Policy
	known    map[string]bool // services that have a cluster
	previous *anypb.Any      // the predicate that keeps retries from servers that failed
}

func newRouteBuilder(in sharedInput) (routeBuilder, error) {
	previous, err := anypb.New(&previoushosts.PreviousHostsPredicate{})
	if err != nil {
		return routeBuilder{}, fmt.Errorf("pack retry predicate: %w", err)
	}
	return routeBuilder{policy: in.policy, known: in.known(), previous: previous}, nil
}

// routesOf are the routes under a service's name: its rules in their order, and then
// the service itself.
func (r routeBuilder) routesOf(service string) []*route.Route {
	var all []*route.Route
	rules := r.policy.For(service).Routes
	if slices.ContainsFunc(rules, func(rule policy.RouteRule) bool { return rule.Path != "" }) {
		all = append(all, refuseHiddenPaths(service))
	}
	for i, rule := range rules {
		services, until := rule.Shares()
		for j, target := range services {
			all = append(all, r.routesTo(target, fmt.Sprintf("%s-%d-%s", service, i, target), routeMatch(rule, until[j]))...)
		}
	}
	return append(all, r.routesTo(service, service, routeMatch(policy.RouteRule{}, policy.Million))...)
}

// routeMatch is what a rule asks of a request, and of Envoy's draw.
func routeMatch(r policy.RouteRule, until uint32) *route.RouteMatch {
	m := &route.RouteMatch{PathSpecifier: &route.RouteMatch_Prefix{Prefix: "/"}}
	if r.Path != "" {
		pattern, _ := policy.PathPattern(r.Path)
		m.PathSpecifier = pathMatching(pattern)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		m.Headers = append(m.Headers, exactHeader(name, r.Headers[name]))
	}
	if until < policy.Million {
		m.RuntimeFraction = &core.RuntimeFractionalPercent{
			DefaultValue: &typev3.FractionalPercent{Numerator: until, Denominator: typev3.FractionalPercent_MILLION},
		}
	}
	return m
}

func exactHeader(header, value string) *route.HeaderMatcher {
	return &route.HeaderMatcher{Name: header, HeaderMatchSpecifier: &route.HeaderMatcher_StringMatch{StringMatch: &matcher.StringMatcher{
		MatchPattern: &matcher.StringMatcher_Exact{Exact: value},
	}}}
}

// routesTo are the routes of what matches to a service, treated as that service wants
// it. What can't go there goes nowhere else.
func (r routeBuilder) routesTo(service, name string, match *route.RouteMatch) []*route.Route {
	p := r.policy.For(service)
	switch {
	case !r.known[service]:
		return []*route.Route{directResponse(name, match, 503, fmt.Sprintf("nobody serves %s, and the policy does not name it", service))}
	case p.Protocol == policy.TCP:
		return []*route.Route{directResponse(name, match, 503, fmt.Sprintf("%s takes TCP connections on port %d", service, p.Listen))}
	}
	var all []*route.Route
	// One route a method: a regular expression costs each request some percent.
	for _, method := range safeMethods() {
		safe := &route.RouteMatch{
			PathSpecifier: match.GetPathSpecifier(), RuntimeFraction: match.GetRuntimeFraction(),
			Headers: append(slices.Clone(match.GetHeaders()), exactHeader(":method", method)),
		}
		all = append(all, &route.Route{
			Name: name + "-" + strings.ToLower(method), Match: safe, Action: r.action(service, p, retrySafe), ResponseHeadersToAdd: servedByHeader(p),
			RequestBodyBufferLimit: retryBuffer(p),
		})
	}
	return append(all, &route.Route{
		Name: name, Match: match, Action: r.action(service, p, retryAnything), ResponseHeadersToAdd: servedByHeader(p),
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
func (r routeBuilder) action(service string, p policy.Service, retryOn string) *route.Route_Route {
	action := &route.RouteAction{
		ClusterSpecifier: &route.RouteAction_Cluster{Cluster: service},
		Timeout:          protoDuration(p.Timeout),
		IdleTimeout:      protoDuration(p.StreamIdleTimeout), // 0 is said, too: the default of Envoy is 5 minutes
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
func buildRoutes(in sharedInput) ([]proto.Message, error) {
	config := &route.RouteConfiguration{
		Name: IngressListener,
		// hello:10000 is the same host as hello.
		IgnorePortInHostMatching: true,
		RequestHeadersToAdd:      requestID(in.policy.Ingress),
	}
	domains := domains(in)
	routing, err := newRouteBuilder(in)
	if err != nil {
		return nil, err
	}
	for _, name := range in.services {
		config.VirtualHosts = append(config.VirtualHosts, &route.VirtualHost{Name: name, Domains: domains[name], Routes: routing.routesOf(name)})
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

// servedByHeader names the server to the client, if the policy says so.
func servedByHeader(p policy.Service) []*core.HeaderValueOption {
	if !p.ShowEndpoint {
		return nil
	}
	return []*core.HeaderValueOption{{
		Header:       &core.HeaderValue{Key: "x-tailxds-endpoint", Value: "%UPSTREAM_HOST_NAME%"},
		AppendAction: core.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD, // what a server claims counts for nothing
	}}
}

// domains are those of each service's virtual host. Envoy takes an exact domain
// first, then the longest suffix wildcard (*.example.com), then the longest prefix
// wildcard (shop.*), and * last:
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/config/route/v3/route_components.proto#config-route-v3-virtualhost
//
// So that a wildcard host of one service does not take the names of the others,
// each service also has its name below each wildcard as an exact domain:
// shop.example.com beside *.example.com.
func domains(in sharedInput) map[string][]string {
	exact, wildcards := claimedHosts(in), wildcardHosts(in)
	all := make(map[string][]string, len(in.services))
	for _, name := range in.services {
		own := []string{name, name + ".*"}
		if name == in.defaultService {
			own = []string{"*"}
		}
		for _, host := range in.policy.For(name).Hosts {
			if exact[host] == name {
				own = append(own, host)
			}
		}
		for _, wildcard := range wildcards {
			below := name + strings.TrimPrefix(wildcard, "*")
			if exact[wildcard] != name && exact[below] == "" {
				own = append(own, below)
			}
		}
		all[name] = own
	}
	return all
}

// claimedHosts are the hosts of the policy and whose they are, but for those that
// are the name of a service: Envoy takes no domain twice, and the name goes first.
func claimedHosts(in sharedInput) map[string]string {
	claimed := make(map[string]string)
	for _, name := range in.services {
		for _, host := range in.policy.For(name).Hosts {
			claimed[host] = name
		}
	}
	for _, name := range in.services {
		delete(claimed, name)
	}
	return claimed
}

// wildcardHosts are the wildcards among the hosts of all services, sorted.
func wildcardHosts(in sharedInput) []string {
	var all []string
	for _, name := range in.services {
		for _, host := range in.policy.For(name).Hosts {
			if strings.HasPrefix(host, "*") {
				all = append(all, host)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// A path has many spellings that servers take for the same: /x/../cart, //cart,
// /%63art. A rule for /cart must match all of them, or it decides about none.
//
// Envoy resolves dot segments and decodes letters, digits and -._~ before it
// routes, and forwards the result: no server and no client means anything by the
// difference. It leaves slashes as they come, for servers do mean something by // and
// %2F (object stores, GitLab, registries); rules match those spellings instead.
// docs/adr/025-paths.md says why.
func normalizePaths(manager *hcm.HttpConnectionManager) {
	manager.NormalizePath = wrapperspb.Bool(true)
	manager.MergeSlashes = false
	manager.PathWithEscapedSlashesAction = hcm.HttpConnectionManager_KEEP_UNCHANGED
}

// hiddenSegment is a dot segment between slashes of which one is encoded. Envoy does
// not resolve it, and some servers do.
const hiddenSegment = `.*(?:/|%2[Ff]|%5[Cc])(?:\.|%2[Ee]){1,2}(?:(?:/|%2[Ff]|%5[Cc]).*)?`

// refuseHiddenPaths answers 400 to paths whose meaning no rule can know.
func refuseHiddenPaths(service string) *route.Route {
	match := &route.RouteMatch{PathSpecifier: pathMatching(hiddenSegment)}
	return directResponse(service+"-hidden-segment", match, 400, "the path has a . or .. beside an encoded slash")
}

func pathMatching(pattern string) *route.RouteMatch_SafeRegex {
	return &route.RouteMatch_SafeRegex{SafeRegex: &matcher.RegexMatcher{Regex: pattern}}
}

// directResponse is a route that Envoy answers by itself.
func directResponse(name string, match *route.RouteMatch, status uint32, why string) *route.Route {
	return &route.Route{Name: name, Match: match, Action: &route.Route_DirectResponse{DirectResponse: &route.DirectResponseAction{
		Status: status, Body: &core.DataSource{Specifier: &core.DataSource_InlineString{InlineString: why + "\n"}},
	}}}
}
