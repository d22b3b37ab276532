package xds

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushosts "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/tailxds/tailxds/internal/document"
	"github.com/tailxds/tailxds/internal/topology"
)

// RouteRule sends requests that come under a service's name to other services.
type RouteRule struct {
	// Path is a prefix of whole segments: /shop is /shop and /shop/cart, and not
	// /shopping. Empty and / are every path. See [pathOf] for how it is written, and
	// docs/operations.md for what spellings it matches.
	Path string `yaml:"path"`
	// Headers must all be there with just these values.
	Headers map[string]string `yaml:"headers"`
	// Service gets what matches; or each service of Split its share.
	Service string `yaml:"service"`
	// Split are services and their weights. One of 0 gets nothing.
	Split map[string]uint32 `yaml:"split"`
}

// String is "/shop, x-beta: yes → shop", or "all → hello 95, next 5".
func (r RouteRule) String() string {
	var match, to []string
	if r.Path != "" {
		match = append(match, r.Path)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		match = append(match, name+": "+r.Headers[name])
	}
	if r.Service != "" {
		to = append(to, r.Service)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Split)) {
		to = append(to, fmt.Sprintf("%s %d", name, r.Split[name]))
	}
	if len(match) == 0 {
		match = []string{"all"}
	}
	return strings.Join(match, ", ") + " → " + strings.Join(to, ", ")
}

const (
	mostRules     = 100
	mostTargets   = 20
	heaviestSplit = 10_000
	longestMatch  = 1_000
)

// shares are the services that a rule sends to, in a fixed order, each with the
// millionths of the requests that go to it or to one before it. Envoy draws
// once for each request, so the shares are those of the weights.
func (r RouteRule) shares() (services []string, until []uint32) {
	if r.Service != "" {
		return []string{r.Service}, []uint32{whole}
	}
	var sum, so uint64
	for _, weight := range r.Split {
		sum += uint64(weight)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Split)) {
		if r.Split[name] == 0 {
			continue
		}
		so += uint64(r.Split[name])
		services, until = append(services, name), append(until, uint32(so*whole/sum))
	}
	return services, until
}

// whole is all requests, in millionths.
const whole = 1_000_000

// readRoutes holds a service's rules to what Envoy takes and what makes sense,
// and writes them as Envoy compares them.
func readRoutes(s document.Section, rules []RouteRule) {
	if len(rules) > mostRules {
		s.Wrong("must be at most %d rules", mostRules)
		return
	}
	for i := range rules {
		if rule := s.Item(i); rule.Sound() {
			readRule(rule, &rules[i])
		}
	}
}

func readRule(s document.Section, r *RouteRule) {
	path, err := pathOf(r.Path)
	if err != nil {
		s.At("path").Wrong("%s", err)
	}
	r.Path = path
	if (r.Service == "") == (len(r.Split) == 0) {
		s.Wrong("a rule needs either service, which gets all that matches, or split, which names several and their weights")
	}
	r.Headers = readHeaders(s.At("headers"), r.Headers)
	r.Service = strings.ToLower(r.Service)
	if err := topology.ValidName(r.Service); r.Service != "" && err != nil {
		s.At("service").Wrong("the service name %q %v", r.Service, err)
	}
	r.Split = readSplit(s.At("split"), r.Split)
}

// readHeaders are the headers as Envoy has them, in lower case.
func readHeaders(s document.Section, written map[string]string) map[string]string {
	headers := make(map[string]string, len(written))
	for _, name := range slices.Sorted(maps.Keys(written)) {
		lower, value, at := strings.ToLower(name), written[name], s.Key(name)
		_, twice := headers[lower]
		switch {
		case !isToken(name) || len(name) > 255:
			at.Wrong("%s can't be the name of a header", document.Quoted(name))
		case lower == "host":
			at.Wrong("the header host is what hosts are for: name a service that has the host")
		case value == "" || strings.TrimSpace(value) != value || !visible(strings.ReplaceAll(value, " ", "")) || len(value) > longestMatch:
			at.Wrong("the value of a header must be visible ASCII")
		case twice:
			at.Wrong("the header stands there twice; names differ in more than case")
		}
		headers[lower] = value
	}
	return headers
}

// readSplit are the weights by the services' names in lower case.
func readSplit(s document.Section, written map[string]uint32) map[string]uint32 {
	if len(written) > mostTargets {
		s.Wrong("a split must name at most %d services", mostTargets)
		return nil
	}
	split, sum := make(map[string]uint32, len(written)), uint64(0)
	for _, name := range slices.Sorted(maps.Keys(written)) {
		lower, weight, at := strings.ToLower(name), written[name], s.Key(name)
		if _, twice := split[lower]; twice {
			at.Wrong("the service stands there twice; names differ in more than case")
		}
		if err := topology.ValidName(lower); err != nil {
			at.Wrong("the service name %q %v", name, err)
		}
		if weight > heaviestSplit {
			at.Wrong("a weight must be from 0 to %d", heaviestSplit)
		}
		split[lower] = weight
		sum += uint64(weight)
	}
	if len(split) > 0 && sum == 0 {
		s.Wrong("one service of a split must have a weight above 0")
	}
	return split
}

// targets yields all services that a rule names, also with a weight of 0.
func (r RouteRule) targets() func(func(string) bool) {
	if r.Service != "" {
		return func(yield func(string) bool) { yield(r.Service) }
	}
	return slices.Values(slices.Sorted(maps.Keys(r.Split)))
}

// routable guards that no rule sends requests to a service of connections.
func (p Policy) routable(services map[string]document.Section) {
	for _, name := range slices.Sorted(maps.Keys(services)) {
		for i, rule := range p.Services[name].Routes {
			for target := range rule.targets() {
				if p.For(target).Protocol == TCP {
					services[name].At("routes").Item(i).Wrong("%s has protocol: tcp, and takes no requests", target)
				}
			}
		}
	}
}

// Problems are what only the topology shows to be wrong with a policy: rules whose
// requests fail, since no device serves what they name, or since it speaks another
// protocol than gRPC clients do.
func (p Policy) Problems(t topology.Topology) []topology.Problem {
	known := frame{services: names(withPolicyServices(t, p))}.known()
	var all []topology.Problem
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		for _, rule := range p.Services[name].Routes {
			for target := range rule.targets() {
				reason := p.whyUnroutable(name, target, known)
				problem := topology.Problem{Subject: "routes of " + name, Reason: reason}
				if reason != "" && !slices.Contains(all, problem) {
					all = append(all, problem)
				}
			}
		}
	}
	return all
}

// whyUnroutable returns why requests fail that a service's rule sends to a target;
// empty if they do not. A service of protocol http2 may well send requests to one of
// http1: its Envoys can, and it need not have gRPC clients.
func (p Policy) whyUnroutable(service, target string, known map[string]bool) string {
	switch {
	case !known[target]:
		return fmt.Sprintf("no device serves %s, and the policy does not name it: requests that a rule sends there fail with 503, calls of gRPC clients with UNAVAILABLE", target)
	case p.For(service).Protocol == GRPC && !p.For(target).speaksGRPC():
		return fmt.Sprintf("%s has protocol: %s: gRPC calls that a rule sends there fail; give it protocol: grpc, or send them elsewhere", target, p.For(target).Protocol)
	default:
		return ""
	}
}

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
	policy   Policy
	known    map[string]bool // services that have a cluster
	previous *anypb.Any      // the predicate that keeps retries from servers that failed
}

func newRouting(f frame) (routing, error) {
	previous, err := anypb.New(&previoushosts.PreviousHostsPredicate{})
	if err != nil {
		return routing{}, fmt.Errorf("pack retry predicate: %w", err)
	}
	return routing{policy: f.policy, known: f.known(), previous: previous}, nil
}

// of are the routes under a service's name: its rules in their order, and then
// the service itself.
func (r routing) of(service string) []*route.Route {
	var all []*route.Route
	rules := r.policy.For(service).Routes
	if slices.ContainsFunc(rules, func(rule RouteRule) bool { return rule.Path != "" }) {
		all = append(all, refuseHidden(service))
	}
	for i, rule := range rules {
		services, until := rule.shares()
		for j, target := range services {
			all = append(all, r.to(target, fmt.Sprintf("%s-%d-%s", service, i, target), rule.match(until[j]))...)
		}
	}
	return append(all, r.to(service, service, RouteRule{}.match(whole))...)
}

// match is what a rule asks of a request, and of Envoy's draw.
func (r RouteRule) match(until uint32) *route.RouteMatch {
	m := &route.RouteMatch{PathSpecifier: &route.RouteMatch_Prefix{Prefix: "/"}}
	if r.Path != "" {
		pattern, _ := pathPattern(r.Path)
		m.PathSpecifier = pathMatching(pattern)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		m.Headers = append(m.Headers, exactly(name, r.Headers[name]))
	}
	if until < whole {
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
	case p.Protocol == TCP:
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
func retryBuffer(p ServicePolicy) *wrapperspb.UInt64Value {
	if p.Retries == 0 {
		return nil
	}
	return wrapperspb.UInt64(uint64(p.RetryBuffer))
}

// action sends a request to a service, and once more to another of its servers
// if that may be done.
func (r routing) action(service string, p ServicePolicy, retryOn string) *route.Route_Route {
	action := &route.RouteAction{
		ClusterSpecifier: &route.RouteAction_Cluster{Cluster: service},
		Timeout:          p.Timeout.proto(),
		IdleTimeout:      p.StreamIdleTimeout.proto(), // 0 is said, too: Envoy has 5 minutes unless told
		HashPolicy:       p.HashOn.policies(),
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
			action.RetryPolicy.PerTryTimeout = p.AttemptTimeout.proto()
		}
	}
	return &route.Route_Route{Route: action}
}
