package xds

import (
	"slices"
	"strings"
	"time"

	"github.com/tailxds/tailxds/internal/balance"
	"github.com/tailxds/tailxds/internal/topology"
)

// meaningless are the keys that say nothing of a service with this protocol,
// and why.
func (s ServicePolicy) meaningless() []check {
	const service = "has no meaning with protocol: "
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

// together refuses what Envoy can't do both of. Failover tells whether the
// service's own section has that key.
func (s ServicePolicy) together(failover bool) []check {
	hashed := s.LoadBalancing == "ring_hash" || s.LoadBalancing == "maglev"
	return []check{
		{"failover", !failover || s.Locality == balance.Local || len(s.Failover) == 0, "goes with locality: local only: the other modes send to all regions"},
		{"locality", s.Locality != balance.Exact || s.LoadBalancing != "least_request", "exact needs load_balancing: round_robin or random: least_request gives no exact shares"},
		{"load_balancing", !hashed || s.HashOn != (HashOn{}), s.LoadBalancing + " needs hash_on, which says what belongs together"},
		{"hash_on", hashed || s.HashOn == (HashOn{}), "goes with load_balancing: ring_hash or maglev only"},
		{"hash_on", s.Protocol != TCP || s.HashOn == (HashOn{}) || s.HashOn.Source, "a connection has no header and no cookie: with protocol: tcp, hash_on is source"},
		{"protocol", s.Protocol != TCP || s.Listen > 0, "tcp needs listen, the port on which Envoys take its connections"},
		{"health_check.protocol", s.checkedBy() != GRPC || s.Protocol == GRPC || s.Protocol == HTTP2, "grpc needs protocol: grpc or http2: Envoy asks over the HTTP/2 of the service"},
		{"locality", !hashed || s.Locality != balance.Nearest, "nearest goes with round_robin, least_request and random: a hash leaves no choice of region"},
		{"slow_start", s.SlowStart == 0 || s.LoadBalancing == "round_robin" || s.LoadBalancing == "least_request" || s.LoadBalancing == ByLoad, "goes with load_balancing: round_robin, least_request or " + ByLoad + " only"},
		{"load_balancing", s.LoadBalancing != ByLoad || s.Protocol != TCP, ByLoad + " needs answers that report a load: with protocol: tcp there are none"},
		{"locality", s.LoadBalancing != ByLoad || s.Locality != balance.Nearest, "nearest goes with round_robin, least_request and random: with " + ByLoad + " the servers' reports weigh, and Envoy knows of no nearest"},
		{"attempt_timeout", s.AttemptTimeout == 0 || s.Retries > 0, "needs retries: without them, timeout is that of the only attempt"},
		{"attempt_timeout", s.AttemptTimeout == 0 || s.Timeout == 0 || s.AttemptTimeout <= s.Timeout, "must not be longer than timeout"},
	}
}

// The words that a key of the file can have.
func protocols() []string  { return []string{HTTP1, HTTP2, GRPC, TCP} }
func checkedBys() []string { return append([]string{Auto}, protocols()...) }
func accessLogs() []string { return []string{LogNone, LogErrors, LogAll} }
func localities() []string {
	return []string{string(balance.Weighted), string(balance.Exact), string(balance.Nearest), string(balance.Local)}
}

func loadBalancings() []string {
	return []string{"round_robin", "least_request", "random", "ring_hash", "maglev", ByLoad}
}

// oneOf says that a value must be one of some words.
func oneOf(words []string) string {
	last := len(words) - 1
	return "must be " + strings.Join(words[:last], ", ") + " or " + words[last]
}

// check holds the value at a path, within its section, to what it must be.
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
		{"protocol", slices.Contains(protocols(), s.Protocol), oneOf(protocols())},
		{"load_balancing", slices.Contains(loadBalancings(), s.LoadBalancing), oneOf(loadBalancings())},
		{"slow_start", within(s.SlowStart, 0, time.Hour), "must be from 0 (none) to 1h"},
		{"attempt_timeout", within(s.AttemptTimeout, 0, 24*time.Hour), "must be from 0 (none) to 24h"},
		{"locality", slices.Contains(localities(), string(s.Locality)), oneOf(localities())},
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
