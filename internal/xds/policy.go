package xds

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tailxds/tailxds/internal/topology"
)

// Policy says how each service is balanced: the document of --config.
type Policy struct {
	// Defaults hold for every service that Services does not name.
	Defaults ServicePolicy
	// Services are complete: what the file leaves out is taken from Defaults.
	Services map[string]ServicePolicy
}

// ServicePolicy says how Envoy treats one service.
type ServicePolicy struct {
	// Hosts are further domains, besides the service's name, under which the
	// service is reached. See
	// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/config/route/v3/route_components.proto#config-route-v3-virtualhost
	Hosts []string `yaml:"hosts"`
	// Protocol that the servers speak: "http1" or "http2" (h2c, for gRPC).
	Protocol string `yaml:"protocol"`
	// LoadBalancing is "round_robin", whose shares are exact, "least_request"
	// or "random".
	LoadBalancing string `yaml:"load_balancing"`
	// Timeout bounds a whole request, retries included; 0 is no bound.
	Timeout Duration `yaml:"timeout"`
	// ConnectTimeout bounds a new connection to a server.
	ConnectTimeout Duration `yaml:"connect_timeout"`
	// Retries is how often a failed request is tried on another server. Only
	// requests that cannot have been acted on, or that are safe to repeat
	// (GET, HEAD, OPTIONS), are retried.
	Retries uint32 `yaml:"retries"`
	// HealthCheck is the active check of every endpoint by every Envoy.
	HealthCheck HealthCheck `yaml:"health_check"`
	// OutlierDetection ejects servers that fail real requests.
	OutlierDetection OutlierDetection `yaml:"outlier_detection"`
	// OverprovisioningFactor in percent: with 140, a locality keeps its whole
	// weight until fewer than 1/1.4 = 71 % of its endpoints are healthy.
	OverprovisioningFactor uint32 `yaml:"overprovisioning_factor"`
}

// HealthCheck is an HTTP check; 200 is healthy, and 503 unhealthy at once.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/intro/arch_overview/upstream/health_checking
type HealthCheck struct {
	Path               string   `yaml:"path"`
	Interval           Duration `yaml:"interval"`
	Timeout            Duration `yaml:"timeout"`
	UnhealthyThreshold uint32   `yaml:"unhealthy_threshold"`
	HealthyThreshold   uint32   `yaml:"healthy_threshold"`
}

// OutlierDetection is passive health checking.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/intro/arch_overview/upstream/outlier
type OutlierDetection struct {
	Consecutive5xx     uint32   `yaml:"consecutive_5xx"`
	BaseEjectionTime   Duration `yaml:"base_ejection_time"`
	MaxEjectionPercent uint32   `yaml:"max_ejection_percent"`
}

// Duration is a [time.Duration] that is written as Go writes it: 1.5s, 2m.
type Duration time.Duration

// UnmarshalYAML reads a duration, and says on which line a bad one is.
func (d *Duration) UnmarshalYAML(node ast.Node) error {
	v, err := time.ParseDuration(node.GetToken().Value)
	if err != nil {
		return fmt.Errorf("line %d: %q is no duration such as 500ms, 5s or 2m", line(node), node.GetToken().Value)
	}
	*d = Duration(v)
	return nil
}

// proto is d as Envoy takes it.
func (d Duration) proto() *durationpb.Duration { return durationpb.New(time.Duration(d)) }

// DefaultPolicy is what holds without a --config file.
func DefaultPolicy() Policy {
	return Policy{Defaults: ServicePolicy{
		Protocol:       "http1",
		LoadBalancing:  "round_robin",
		Timeout:        Duration(15 * time.Second), // Envoy's own default
		ConnectTimeout: Duration(2 * time.Second),  // a relay on another continent must fit
		Retries:        3,
		HealthCheck: HealthCheck{
			Path: "/healthz", Interval: Duration(time.Second), Timeout: Duration(time.Second), UnhealthyThreshold: 2, HealthyThreshold: 1,
		},
		OutlierDetection:       OutlierDetection{Consecutive5xx: 5, BaseEjectionTime: Duration(5 * time.Second), MaxEjectionPercent: 50},
		OverprovisioningFactor: 140,
	}}
}

// For is the policy of a service.
func (p Policy) For(service string) ServicePolicy {
	if s, ok := p.Services[service]; ok {
		return s
	}
	return p.Defaults
}

// ParsePolicy reads a policy file, strictly: an unknown key, a bad value or
// two services that claim the same host are errors that tell their line.
func ParsePolicy(source []byte) (p Policy, err error) {
	// The YAML library panics on some broken input, which must not cost a
	// running control plane its life.
	defer func() {
		if r := recover(); r != nil {
			p, err = Policy{}, fmt.Errorf("parse policy: this is no YAML that can be read (%v)", r)
		}
	}()
	p = DefaultPolicy()
	file, err := parser.ParseBytes(source, 0)
	if err != nil {
		return Policy{}, fmt.Errorf("parse policy: %s", yaml.FormatError(err, false, true))
	}
	var document struct {
		Defaults ast.Node            `yaml:"defaults"`
		Services map[string]ast.Node `yaml:"services"`
	}
	if len(file.Docs) == 0 || file.Docs[0].Body == nil {
		return p, nil
	}
	if len(file.Docs) > 1 {
		return Policy{}, fmt.Errorf("parse policy: one YAML document is wanted, not %d", len(file.Docs))
	}
	if err := decode(file.Docs[0].Body, &document); err != nil {
		return Policy{}, err
	}
	if document.Defaults != nil {
		if p.Defaults, err = parseService(document.Defaults, p.Defaults); err != nil {
			return Policy{}, fmt.Errorf("defaults: %w", err)
		}
		if len(p.Defaults.Hosts) > 0 {
			return Policy{}, fmt.Errorf("line %d: defaults: hosts belong to one service, not to all", line(document.Defaults))
		}
	}
	p.Services = make(map[string]ServicePolicy, len(document.Services))
	for _, name := range slices.Sorted(maps.Keys(document.Services)) {
		node := document.Services[name]
		lower := strings.ToLower(name)
		if err := topology.ValidName(lower); err != nil {
			return Policy{}, fmt.Errorf("line %d: the service name %q %w", line(node), name, err)
		}
		if _, twice := p.Services[lower]; twice {
			return Policy{}, fmt.Errorf("line %d: the service %q stands there twice; names differ in more than case", line(node), name)
		}
		if p.Services[lower], err = parseService(node, p.Defaults); err != nil {
			return Policy{}, fmt.Errorf("service %s: %w", name, err)
		}
	}
	if err := p.distinctHosts(document.Services); err != nil {
		return Policy{}, err
	}
	return p, nil
}

func decode(node ast.Node, into any) error {
	if err := yaml.NodeToValue(node, into, yaml.Strict()); err != nil {
		return fmt.Errorf("parse policy: %s", yaml.FormatError(err, false, true))
	}
	return nil
}

func line(node ast.Node) int {
	if node == nil {
		return 0
	}
	return node.GetToken().Position.Line
}

// parseService reads one service's policy over its defaults.
func parseService(node ast.Node, defaults ServicePolicy) (ServicePolicy, error) {
	if node == nil || node.Type() == ast.NullType {
		return defaults, nil
	}
	s := defaults
	s.Hosts = nil
	if err := decode(node, &s); err != nil {
		return ServicePolicy{}, err
	}
	for i, host := range s.Hosts {
		s.Hosts[i] = strings.ToLower(host)
	}
	for _, c := range s.checks() {
		if !c.ok {
			return ServicePolicy{}, fmt.Errorf("line %d: %s %s", lineOf(node, c.path), c.path, c.want)
		}
	}
	return s, nil
}

type check struct {
	path string
	ok   bool
	want string
}

// checks hold each value to what Envoy takes, and to what makes sense.
func (s ServicePolicy) checks() []check {
	within := func(d Duration, low, high time.Duration) bool {
		return time.Duration(d) >= low && time.Duration(d) <= high
	}
	h, o := s.HealthCheck, s.OutlierDetection
	return []check{
		{"hosts", validHosts(s.Hosts), "must be plain domain names without port, such as app.example.com or *.example.com"},
		{"protocol", s.Protocol == "http1" || s.Protocol == "http2", "must be http1 or http2"},
		{"load_balancing", slices.Contains([]string{"round_robin", "least_request", "random"}, s.LoadBalancing), "must be round_robin, least_request or random"},
		{"timeout", within(s.Timeout, 0, 24*time.Hour), "must be from 0 (none) to 24h"},
		{"connect_timeout", within(s.ConnectTimeout, 10*time.Millisecond, time.Minute), "must be from 10ms to 1m"},
		{"retries", s.Retries <= 10, "must be from 0 to 10"},
		{"health_check.path", strings.HasPrefix(h.Path, "/") && !strings.ContainsAny(h.Path, " \r\n\x00"), "must begin with / and hold no spaces"},
		{"health_check.interval", within(h.Interval, 100*time.Millisecond, time.Hour), "must be from 100ms to 1h"},
		{"health_check.timeout", within(h.Timeout, 10*time.Millisecond, time.Minute), "must be from 10ms to 1m"},
		{"health_check.unhealthy_threshold", h.UnhealthyThreshold >= 1 && h.UnhealthyThreshold <= 100, "must be from 1 to 100"},
		{"health_check.healthy_threshold", h.HealthyThreshold >= 1 && h.HealthyThreshold <= 100, "must be from 1 to 100"},
		{"outlier_detection.consecutive_5xx", o.Consecutive5xx >= 1 && o.Consecutive5xx <= 10000, "must be from 1 to 10000"},
		{"outlier_detection.base_ejection_time", within(o.BaseEjectionTime, 100*time.Millisecond, time.Hour), "must be from 100ms to 1h"},
		{"outlier_detection.max_ejection_percent", o.MaxEjectionPercent <= 100, "must be from 0 to 100"},
		{"overprovisioning_factor", s.OverprovisioningFactor >= 100 && s.OverprovisioningFactor <= 10000, "must be from 100 to 10000 percent"},
	}
}

func validHosts(hosts []string) bool {
	for _, h := range hosts {
		name := strings.TrimPrefix(h, "*.")
		if name == "" || strings.ContainsAny(name, "*:/ \t\r\n") {
			return false
		}
	}
	return true
}

// lineOf is the line of a dotted path below node, or of node itself where the
// path is not written out.
func lineOf(node ast.Node, path string) int {
	p, err := yaml.PathString("$." + path)
	if err != nil {
		return line(node)
	}
	found, err := p.FilterNode(node)
	if err != nil || found == nil {
		return line(node)
	}
	return line(found)
}

// distinctHosts guards the one rule that spans services: Envoy refuses a route
// configuration in which a domain stands twice.
func (p Policy) distinctHosts(nodes map[string]ast.Node) error {
	owner := make(map[string]string)
	for _, name := range slices.Sorted(maps.Keys(nodes)) {
		for _, host := range p.Services[strings.ToLower(name)].Hosts {
			if first, taken := owner[host]; taken {
				return fmt.Errorf("line %d: service %s: the host %s belongs to service %s already", lineOf(nodes[name], "hosts"), name, host, first)
			}
			owner[host] = name
		}
	}
	return nil
}
