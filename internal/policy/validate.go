package policy

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tailxds/tailxds/internal/balance"
	"github.com/tailxds/tailxds/internal/topology"
)

// meaningless are the keys that say nothing of a service with this protocol,
// and why.
func (s Service) meaningless() []check {
	const service = "has no meaning with protocol: "
	if s.Protocol == TCP {
		return append(s.meaninglessChecks(), []check{
			must("hosts", false, service+"tcp: a connection names no host"),
			must("routes", false, service+"tcp: a connection names no path"),
			must("timeout", false, service+"tcp"),
			must("attempt_timeout", false, service+"tcp"),
			must("idle_timeout", false, service+"tcp: a connection to a server is that of one client; see stream_idle_timeout"),
			must("retry_buffer", false, service+"tcp"),
			must("limits.retries", false, service+"tcp: see retries"),
			must("show_endpoint", false, service+"tcp"),
			must("outlier_detection.consecutive_gateway_errors", false, service+"tcp: see outlier_detection.consecutive_connection_failures"),
			must("outlier_detection.consecutive_5xx", false, service+"tcp: see outlier_detection.consecutive_connection_failures"),
		}...)
	}
	return append(s.meaninglessChecks(), must("listen", false, service+s.Protocol+": it is for tcp only"))
}

// together refuses what Envoy can't do both of. Failover tells whether the
// service's own section has that key.
func (s Service) together(failover bool) []check {
	hashed := s.LoadBalancing == "ring_hash" || s.LoadBalancing == "maglev"
	return []check{
		must("failover", !failover || s.Locality == balance.Local || len(s.Failover) == 0, "goes with locality: local only: the other modes send to all regions"),
		must("locality", s.Locality != balance.Exact || (s.LoadBalancing != "least_request" && s.LoadBalancing != "random"), "exact does not go with least_request or random: least_request gives no exact shares, and random ignores weights"),
		must("load_balancing", !hashed || s.HashOn != (HashOn{}), s.LoadBalancing+" needs hash_on, which says what belongs together"),
		must("hash_on", hashed || s.HashOn == (HashOn{}), "goes with load_balancing: ring_hash or maglev only"),
		must("hash_on", s.Protocol != TCP || s.HashOn == (HashOn{}) || s.HashOn.Source, "a connection has no header and no cookie: with protocol: tcp, hash_on is source"),
		must("protocol", s.Protocol != TCP || s.Listen > 0, "tcp needs listen, the port on which Envoys take its connections"),
		must("health_check.protocol", s.CheckedBy() != GRPC || s.Protocol == GRPC || s.Protocol == HTTP2, "grpc needs protocol: grpc or http2: Envoy asks over the HTTP/2 of the service"),
		must("locality", !hashed || s.Locality != balance.Nearest, "nearest goes with round_robin, least_request and random: a hash leaves no choice of region"),
		must("slow_start", s.SlowStart == 0 || s.LoadBalancing == "round_robin" || s.LoadBalancing == "least_request" || s.LoadBalancing == ByLoad, "goes with load_balancing: round_robin, least_request or "+ByLoad+" only"),
		must("load_balancing", s.LoadBalancing != ByLoad || s.Protocol != TCP, ByLoad+" needs answers that report a load: with protocol: tcp there are none"),
		must("locality", s.LoadBalancing != ByLoad || s.Locality != balance.Nearest, "nearest goes with round_robin, least_request and random: with "+ByLoad+" the servers' reports weigh, and Envoy knows of no nearest"),
		must("attempt_timeout", s.AttemptTimeout == 0 || s.Retries > 0, "needs retries: without them, timeout is that of the only attempt"),
		must("attempt_timeout", s.AttemptTimeout == 0 || s.Timeout == 0 || s.AttemptTimeout <= s.Timeout, "must not be longer than timeout"),
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

// check holds the value at a path, within its section, to what it must be.
type check struct {
	path string
	ok   bool
	want string
	// What a schema can say of that: which words there are, or from where to where
	// a number goes.
	words     []string
	low, high uint32
}

// must is a check that no schema can say.
func must(path string, ok bool, want string) check { return check{path: path, ok: ok, want: want} }

// oneOf is the check that a value is one of some words.
func oneOf(path, value string, words []string) check {
	last := len(words) - 1
	return check{
		path: path, ok: slices.Contains(words, value), want: "must be " + strings.Join(words[:last], ", ") + " or " + words[last],
		words: words,
	}
}

// number is the check that a value is from low to high.
func number(path string, value, low, high uint32) check {
	return check{path: path, ok: value >= low && value <= high, want: fmt.Sprintf("must be from %d to %d", low, high), low: low, high: high}
}

// duration is the check that a value is from low to high.
func duration(path string, value Duration, low, high time.Duration) check {
	from := Duration(low).String()
	if low == 0 {
		from = "0 (none)"
	}
	return must(path, time.Duration(value) >= low && time.Duration(value) <= high, fmt.Sprintf("must be from %s to %s", from, Duration(high)))
}

// checks hold each value to what Envoy takes, and to what makes sense.
func (s Service) checks() []check {
	o, l := s.OutlierDetection, s.Limits
	return append(s.HealthCheck.checks(), []check{
		must("hosts", !slices.ContainsFunc(s.Hosts, badHost), "must be plain domain names without port, such as app.example.com or *.example.com"),
		oneOf("protocol", s.Protocol, protocols()),
		oneOf("load_balancing", s.LoadBalancing, loadBalancings()),
		duration("slow_start", s.SlowStart, 0, time.Hour),
		duration("attempt_timeout", s.AttemptTimeout, 0, 24*time.Hour),
		oneOf("locality", string(s.Locality), localities()),
		must("failover", !slices.ContainsFunc(s.Failover, func(r string) bool { return topology.ValidName(r) != nil }), "must be names of regions, such as [central, east]"),
		must("failover", len(slices.Compact(slices.Sorted(slices.Values(s.Failover)))) == len(s.Failover), "must name each region once"),
		duration("timeout", s.Timeout, 0, 24*time.Hour),
		duration("stream_idle_timeout", s.StreamIdleTimeout, 0, 24*time.Hour),
		duration("idle_timeout", s.IdleTimeout, 0, time.Hour),
		duration("connect_timeout", s.ConnectTimeout, 10*time.Millisecond, time.Minute),
		number("retries", s.Retries, 0, 10),
		size("retry_buffer", s.RetryBuffer, 64*KiB, GiB),
		number("limits.connections", l.Connections, 1, math.MaxUint32),
		number("limits.pending", l.Pending, 1, math.MaxUint32),
		number("limits.requests", l.Requests, 1, math.MaxUint32),
		number("limits.retries", l.Retries, 1, math.MaxUint32),
		number("outlier_detection.consecutive_gateway_errors", o.ConsecutiveGatewayErrors, 0, 10_000),
		number("outlier_detection.consecutive_connection_failures", o.ConsecutiveConnectionFailures, 0, 10_000),
		number("outlier_detection.consecutive_5xx", o.Consecutive5xx, 0, 10_000),
		duration("outlier_detection.base_ejection_time", o.BaseEjectionTime, 100*time.Millisecond, time.Hour),
		number("outlier_detection.max_ejection_percent", o.MaxEjectionPercent, 0, 100),
		number("overprovisioning_factor", s.OverprovisioningFactor, 100, 10_000),
	}...)
}

// checks hold each value of the ingress to what makes sense.
func (p Ingress) checks() []check {
	return []check{
		number("port", uint32(p.Port), 1, math.MaxUint16),
		must("allow", len(p.Allow) > 0, "must name who is let in, such as "+FromTailnet+" or 10.0.0.0/8"),
		number("trusted_hops", p.TrustedHops, 0, mostHops),
		oneOf("access_log", p.AccessLog, accessLogs()),
	}
}

// visible tells whether s is ASCII without spaces and control characters.
func visible(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

// badAuthority tells whether a is no host with or without a port.
func badAuthority(a string) bool {
	host, port, hasPort := strings.Cut(a, ":")
	_, err := strconv.ParseUint(port, 10, 16)
	return badHost(strings.ToLower(host)) || strings.HasPrefix(host, "*") || hasPort && err != nil
}

// badHost tells whether h, in lower case, is no domain name (RFC 1123, with the
// underscores that some have), with or without *. in front.
func badHost(h string) bool {
	name := strings.TrimPrefix(h, "*.")
	return len(h) > 253 || slices.ContainsFunc(strings.Split(name, "."), func(label string) bool {
		return label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != ""
	})
}
