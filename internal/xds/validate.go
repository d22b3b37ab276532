package xds

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/tailxds/tailxds/internal/balance"
	"github.com/tailxds/tailxds/internal/topology"
)

// meaningless are the keys that say nothing of a service with this protocol,
// and why.
func (s ServicePolicy) meaningless() []check {
	const service = " has no meaning with protocol: "
	if s.Protocol == TCP {
		return append(s.meaninglessChecks(), []check{
			{path: "hosts", want: service + "tcp: a connection names no host"},
			{path: "routes", want: service + "tcp: a connection names no path"},
			{path: "timeout", want: service + "tcp"},
			{path: "attempt_timeout", want: service + "tcp"},
			{path: "show_endpoint", want: service + "tcp"},
		}...)
	}
	return append(s.meaninglessChecks(), check{path: "listen", want: service + s.Protocol + ": it is for tcp only"})
}

// together refuses what Envoy can't do both of.
func (s ServicePolicy) together(node ast.Node) error {
	hashed := s.LoadBalancing == "ring_hash" || s.LoadBalancing == "maglev"
	for _, c := range []check{
		{"load_balancing", !hashed || s.HashOn != (HashOn{}), s.LoadBalancing + " needs hash_on, which says what belongs together"},
		{"hash_on", hashed || s.HashOn == (HashOn{}), "hash_on goes with load_balancing: ring_hash or maglev only"},
		{"hash_on", s.Protocol != TCP || s.HashOn == (HashOn{}) || s.HashOn.Source, "a connection has no header and no cookie: with protocol: tcp, hash_on is source"},
		{"protocol", s.Protocol != TCP || s.Listen > 0, "protocol: tcp needs listen, the port on which Envoys take its connections"},
		{"health_check.protocol", s.checkedBy() != GRPC || s.Protocol == GRPC || s.Protocol == HTTP2, "health_check.protocol: grpc needs protocol: grpc or http2: Envoy asks over the HTTP/2 of the service"},
		{"locality", !hashed || s.Locality != balance.Nearest, "locality: nearest goes with round_robin, least_request and random: a hash leaves no choice of region"},
		{"slow_start", s.SlowStart == 0 || s.LoadBalancing == "round_robin" || s.LoadBalancing == "least_request" || s.LoadBalancing == ByLoad, "slow_start goes with load_balancing: round_robin, least_request or " + ByLoad + " only"},
		{"load_balancing", s.LoadBalancing != ByLoad || s.Protocol != TCP, ByLoad + " needs answers that report a load: with protocol: tcp there are none"},
		{"locality", s.LoadBalancing != ByLoad || s.Locality != balance.Nearest, "locality: nearest goes with round_robin, least_request and random: with " + ByLoad + " the servers' reports weigh, and Envoy knows of no nearest"},
		{"attempt_timeout", s.AttemptTimeout == 0 || s.Retries > 0, "attempt_timeout needs retries: without them, timeout is that of the only attempt"},
		{"attempt_timeout", s.AttemptTimeout == 0 || s.Timeout == 0 || s.AttemptTimeout <= s.Timeout, "attempt_timeout must not be longer than timeout"},
	} {
		if !c.ok {
			return fmt.Errorf("line %d: %s", lineOf(node, c.path), c.want)
		}
	}
	return nil
}

type check struct {
	path string
	ok   bool
	want string
}

// checks hold each value to what Envoy takes, and to what makes sense.
func (s ServicePolicy) checks() []check {
	o, l := s.OutlierDetection, s.Limits
	const limit = "must be from 1 to 4294967295"
	return append(s.HealthCheck.checks(), []check{
		{"hosts", !slices.ContainsFunc(s.Hosts, badHost), "must be plain domain names without port, such as app.example.com or *.example.com"},
		{"protocol", slices.Contains([]string{HTTP1, HTTP2, GRPC, TCP}, s.Protocol), "must be http1, http2, grpc or tcp"},
		{"load_balancing", slices.Contains([]string{"round_robin", "least_request", "random", "ring_hash", "maglev", ByLoad}, s.LoadBalancing), "must be round_robin, least_request, random, ring_hash, maglev or " + ByLoad},
		{"slow_start", within(s.SlowStart, 0, time.Hour), "must be from 0 (none) to 1h"},
		{"attempt_timeout", within(s.AttemptTimeout, 0, 24*time.Hour), "must be from 0 (none) to 24h"},
		{"locality", slices.Contains([]balance.Mode{balance.Weighted, balance.Exact, balance.Nearest, balance.Local}, s.Locality), "must be weighted, exact, nearest or local"},
		{"failover", !slices.ContainsFunc(s.Failover, func(r string) bool { return topology.ValidName(r) != nil }), "must be names of regions, such as [central, east]"},
		{"failover", len(slices.Compact(slices.Sorted(slices.Values(s.Failover)))) == len(s.Failover), "must name each region once"},
		{"timeout", within(s.Timeout, 0, 24*time.Hour), "must be from 0 (none) to 24h"},
		{"connect_timeout", within(s.ConnectTimeout, 10*time.Millisecond, time.Minute), "must be from 10ms to 1m"},
		{"retries", s.Retries <= 10, "must be from 0 to 10"},
		{"limits.connections", l.Connections >= 1, limit},
		{"limits.pending", l.Pending >= 1, limit},
		{"limits.requests", l.Requests >= 1, limit},
		{"outlier_detection.consecutive_5xx", o.Consecutive5xx >= 1 && o.Consecutive5xx <= 10000, "must be from 1 to 10000"},
		{"outlier_detection.base_ejection_time", within(o.BaseEjectionTime, 100*time.Millisecond, time.Hour), "must be from 100ms to 1h"},
		{"outlier_detection.max_ejection_percent", o.MaxEjectionPercent <= 100, "must be from 0 to 100"},
		{"overprovisioning_factor", s.OverprovisioningFactor >= 100 && s.OverprovisioningFactor <= 10000, "must be from 100 to 10000 percent"},
	}...)
}

func within(d Duration, low, high time.Duration) bool {
	return time.Duration(d) >= low && time.Duration(d) <= high
}

// visible tells whether s is ASCII without spaces and control characters.
func visible(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

// badHost tells whether h, in lower case, is no domain name (RFC 1123, with the
// underscores that some have), with or without *. in front.
func badHost(h string) bool {
	name := strings.TrimPrefix(h, "*.")
	return len(h) > 253 || slices.ContainsFunc(strings.Split(name, "."), func(label string) bool {
		return label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != ""
	})
}
