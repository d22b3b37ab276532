package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/yamldoc"
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
	maxRules = 100
	// MaxTargets bounds the services of one split.
	MaxTargets = 20
	// MaxSplitWeight is the largest weight of a service in a split.
	MaxSplitWeight = 10_000
	maxMatchBytes  = 1_000
)

// Shares are the services that a rule sends to, in a fixed order, each with the
// millionths of the requests that go to it or to one before it. Envoy draws
// once for each request, so the shares are those of the weights.
func (r RouteRule) Shares() (services []string, until []uint32) {
	if r.Service != "" {
		return []string{r.Service}, []uint32{Million}
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
		services, until = append(services, name), append(until, uint32(so*Million/sum))
	}
	return services, until
}

// Million is all requests, in millionths.
const Million = 1_000_000

// readRoutes holds a service's rules to what Envoy takes and what makes sense,
// and writes them as Envoy compares them.
func readRoutes(s yamldoc.Section, rules []RouteRule) {
	if len(rules) > maxRules {
		s.AddError("must be at most %d rules", maxRules)
		return
	}
	for i := range rules {
		if rule := s.Item(i); rule.Valid() {
			readRule(rule, &rules[i])
		}
	}
}

func readRule(s yamldoc.Section, r *RouteRule) {
	path, err := pathOf(r.Path)
	if err != nil {
		s.At("path").AddError("%s", err)
	}
	r.Path = path
	if (r.Service == "") == (len(r.Split) == 0) {
		s.AddError("a rule needs either service, which gets all that matches, or split, which names several and their weights")
	}
	r.Headers = readHeaders(s.At("headers"), r.Headers)
	r.Service = strings.ToLower(r.Service)
	if err := topology.ValidName(r.Service); r.Service != "" && err != nil {
		s.At("service").AddError("the service name %q %v", r.Service, err)
	}
	r.Split = readSplit(s.At("split"), r.Split)
}

// readHeaders are the headers as Envoy has them, in lower case.
func readHeaders(s yamldoc.Section, written map[string]string) map[string]string {
	headers := make(map[string]string, len(written))
	for _, name := range slices.Sorted(maps.Keys(written)) {
		lower, value, at := strings.ToLower(name), written[name], s.Key(name)
		_, twice := headers[lower]
		switch {
		case !isToken(name) || len(name) > 255:
			at.AddError("%s can't be the name of a header", yamldoc.Quoted(name))
		case lower == "host":
			at.AddError("the header host is what hosts are for: name a service that has the host")
		case value == "" || strings.TrimSpace(value) != value || !visible(strings.ReplaceAll(value, " ", "")) || len(value) > maxMatchBytes:
			at.AddError("the value of a header must be visible ASCII")
		case twice:
			at.AddError("the header stands there twice; names differ in more than case")
		}
		headers[lower] = value
	}
	return headers
}

// readSplit are the weights by the services' names in lower case.
func readSplit(s yamldoc.Section, written map[string]uint32) map[string]uint32 {
	if len(written) > MaxTargets {
		s.AddError("a split must name at most %d services", MaxTargets)
		return nil
	}
	split, sum := make(map[string]uint32, len(written)), uint64(0)
	for _, name := range slices.Sorted(maps.Keys(written)) {
		lower, weight, at := strings.ToLower(name), written[name], s.Key(name)
		if _, twice := split[lower]; twice {
			at.AddError("the service stands there twice; names differ in more than case")
		}
		if err := topology.ValidName(lower); err != nil {
			at.AddError("the service name %q %v", name, err)
		}
		if weight > MaxSplitWeight {
			at.AddError("a weight must be from 0 to %d", MaxSplitWeight)
		}
		split[lower] = weight
		sum += uint64(weight)
	}
	if len(split) > 0 && sum == 0 {
		s.AddError("one service of a split must have a weight above 0")
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
func (p Policy) routable(services map[string]yamldoc.Section) {
	for _, name := range slices.Sorted(maps.Keys(services)) {
		for i, rule := range p.Services[name].Routes {
			for target := range rule.targets() {
				if p.For(target).Protocol == TCP {
					services[name].At("routes").Item(i).AddError("%s has protocol: tcp, and takes no requests", target)
				}
			}
		}
	}
}

// Problems are what only the topology shows to be wrong with a policy: rules whose
// requests fail, since no device serves what they name, or since it speaks another
// protocol than gRPC clients do.
func (p Policy) Problems(t topology.Topology) []topology.Problem {
	known := make(map[string]bool, len(t.Services)+len(p.Services))
	for _, s := range t.Services {
		known[s.Name] = true
	}
	for name := range p.Services {
		known[name] = true
	}
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
	case p.For(service).Protocol == GRPC && !p.For(target).SpeaksGRPC():
		return fmt.Sprintf("%s has protocol: %s: gRPC calls that a rule sends there fail; give it protocol: grpc, or send them elsewhere", target, p.For(target).Protocol)
	default:
		return ""
	}
}
