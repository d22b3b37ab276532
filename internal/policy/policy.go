// Package policy is the language of the policy file: its types, defaults, parser, rules
// and schema. It knows nothing of Envoy: package envoy makes resources of a [Policy].
package policy

import (
	"fmt"
	"strings"
	"time"

	"github.com/tailxds/tailxds/internal/balance"
	"github.com/tailxds/tailxds/internal/yamldoc"
)

// Policy says how each service is balanced, and where Envoys take requests:
// the document of --config.
type Policy struct {
	// Defaults hold for every service that Services does not name.
	Defaults Service
	// Services are complete: what the file leaves out is taken from Defaults.
	// Each has a virtual host and a cluster, also while nobody serves it.
	Services map[string]Service
	// Ingress is the same for all services.
	Ingress Ingress
}

// Ingress says where Envoys take requests, and from whom.
type Ingress struct {
	// Port on which every Envoy listens, on all addresses of its host.
	Port uint16 `yaml:"port"`
	// Allow are the sources that are let in: [FromTailnet], [FromLoopback],
	// and further addresses and networks. Others' connections are closed.
	Allow []string `yaml:"allow"`
	// TrustedHops is how many proxies in front of every Envoy are believed in
	// what x-forwarded-for says of the client; 0 believes nobody.
	TrustedHops uint32 `yaml:"trusted_hops"`
	// AccessLog is which requests Envoys write on their standard output:
	// [LogNone], [LogErrors] or [LogAll].
	AccessLog string `yaml:"access_log"`
}

// The sources that [Ingress.Allow] knows by name.
const (
	// FromTailnet is every address that Tailscale gives to devices:
	// https://tailscale.com/kb/1015/100.x-addresses.
	FromTailnet = "tailnet"
	// FromLoopback is what shares Envoy's network namespace.
	FromLoopback = "loopback"
)

// What servers can speak.
const (
	HTTP1 = "http1"
	HTTP2 = "http2"
	GRPC  = "grpc"
	TCP   = "tcp"
)

// Service says how Envoy treats one service.
type Service struct {
	// Hosts are further domains, besides the service's name, under which the
	// service is reached. See
	// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/config/route/v3/route_components.proto#config-route-v3-virtualhost
	Hosts []string `yaml:"hosts"`
	// Routes send some of the requests under the service's name to others. The
	// first rule that matches decides, without those of the service that it names;
	// what none matches goes to the service itself.
	Routes []RouteRule `yaml:"routes"`
	// Protocol that the servers speak, and are checked in: [HTTP1], [HTTP2]
	// without TLS (h2c), [GRPC], which is the same with gRPC's health check, or
	// [TCP], whose connections are handed on as they are.
	Protocol string `yaml:"protocol"`
	// Listen is the port on which every Envoy takes the connections of a [TCP]
	// service.
	Listen uint16 `yaml:"listen"`
	// LoadBalancing is "round_robin", whose shares are exact, "least_request", or
	// "random", which ignores weights within a region; or for requests that belong
	// together "ring_hash" or "maglev"; or [ByLoad].
	// https://www.envoyproxy.io/docs/envoy/v1.40.0/intro/arch_overview/upstream/load_balancing/load_balancers
	LoadBalancing string `yaml:"load_balancing"`
	// HashOn says what belongs together.
	HashOn HashOn `yaml:"hash_on"`
	// SlowStart is how long a newcomer's share grows to its weight's; 0 is not
	// at all. Nobody is slow who is alone in its locality.
	// https://www.envoyproxy.io/docs/envoy/v1.40.0/intro/arch_overview/upstream/load_balancing/slow_start
	SlowStart Duration `yaml:"slow_start"`
	// ShowEndpoint adds the header x-tailxds-endpoint to each answer: the name of
	// the device that gave it.
	ShowEndpoint bool `yaml:"show_endpoint"`
	// Locality is how regions are treated: weighted, exact, nearest or local. See
	// docs/balancing.md.
	Locality balance.Mode `yaml:"locality"`
	// Failover orders the other regions for [balance.Local]; those that it does
	// not name come last, all at once.
	Failover []string `yaml:"failover"`
	// Timeout bounds a whole request, retries included; 0 is no bound.
	Timeout Duration `yaml:"timeout"`
	// StreamIdleTimeout ends a request, an upgraded connection (WebSocket) or a
	// connection of a [TCP] service on which no byte has moved in either direction for
	// so long; 0 is never. Envoy would end the first two after 5 minutes, and the last
	// after an hour.
	StreamIdleTimeout Duration `yaml:"stream_idle_timeout"`
	// IdleTimeout closes a connection to a server that no request has used for so
	// long; 0 is never. It must be shorter than the servers' own: a
	// request that meets a server's close fails if it is not safe to repeat.
	IdleTimeout Duration `yaml:"idle_timeout"`
	// AttemptTimeout bounds each attempt of a request that may be retried; 0 is
	// only the Timeout of all.
	AttemptTimeout Duration `yaml:"attempt_timeout"`
	// ConnectTimeout bounds a new connection to a server.
	ConnectTimeout Duration `yaml:"connect_timeout"`
	// Retries is how often a failed request is tried on another server. Only
	// requests that cannot have been acted on, or that are safe to repeat
	// (GET, HEAD, OPTIONS), are retried.
	Retries uint32 `yaml:"retries"`
	// RetryBuffer is how much of a request's body Envoy keeps until a server has begun
	// to answer, to send it again. A request with a longer body is not retried.
	RetryBuffer Size `yaml:"retry_buffer"`
	// Limits bound what one Envoy sends to all servers of the service together.
	Limits Limits `yaml:"limits"`
	// HealthCheck is the active check of every endpoint by every Envoy.
	HealthCheck HealthCheck `yaml:"health_check"`
	// OutlierDetection ejects servers that fail real requests.
	OutlierDetection OutlierDetection `yaml:"outlier_detection"`
	// OverprovisioningFactor in percent: with 140, a locality keeps its whole
	// weight until fewer than 1/1.4 = 71 % of its endpoints are healthy.
	OverprovisioningFactor uint32 `yaml:"overprovisioning_factor"`
}

// Limits are Envoy's circuit breakers: beyond them it answers 503 at once.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/intro/arch_overview/upstream/circuit_breaking
type Limits struct {
	// Connections to all servers of the service.
	Connections uint32 `yaml:"connections"`
	// Pending requests wait for a connection.
	Pending uint32 `yaml:"pending"`
	// Requests in flight.
	Requests uint32 `yaml:"requests"`
	// Retries under way at the same time. It bounds a retry storm by a number that
	// does not grow with the requests that fail.
	Retries uint32 `yaml:"retries"`
}

// OutlierDetection is passive health checking. Nothing else ejects.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/intro/arch_overview/upstream/outlier
type OutlierDetection struct {
	// ConsecutiveGatewayErrors are answers of 502, 503 or 504 in a row, or the gRPC
	// statuses UNAVAILABLE and DEADLINE_EXCEEDED, that eject; 0 is none.
	ConsecutiveGatewayErrors uint32 `yaml:"consecutive_gateway_errors"`
	// ConsecutiveConnectionFailures are requests in a row for which a connection
	// could not be opened, broke or gave no answer in time, that eject; 0 is none.
	ConsecutiveConnectionFailures uint32 `yaml:"consecutive_connection_failures"`
	// Consecutive5xx answers of any 5xx in a row eject, whatever the URL; 0, the
	// default, is none: one URL that always fails would eject healthy servers.
	Consecutive5xx uint32 `yaml:"consecutive_5xx"`
	// BaseEjectionTime is how long, times how often it happened lately.
	BaseEjectionTime   Duration `yaml:"base_ejection_time"`
	MaxEjectionPercent uint32   `yaml:"max_ejection_percent"`
}

// Duration is a [time.Duration] in whole milliseconds that is written as Go writes
// it: 1.5s, 2m. Envoy drops what is less than one, and then takes 0 for no bound.
type Duration time.Duration

// UnmarshalText reads a duration.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("must be a duration such as 500ms, 5s or 2m, and not %s", yamldoc.Quoted(string(text)))
	}
	// By the units as well, so that a schema can tell.
	if v%time.Millisecond != 0 || strings.ContainsAny(string(text), "nuµμ") {
		return fmt.Errorf("must be in whole milliseconds, such as 1ms, 1.5s or 2m, and not %s: Envoy drops what is less", yamldoc.Quoted(string(text)))
	}
	*d = Duration(v)
	return nil
}

// String is d as people write it: 24h and not 24h0m0s.
func (d Duration) String() string {
	s := time.Duration(d).String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, zero) {
			s = s[:len(s)-2]
		}
	}
	return s
}

// unbounded is more than one Envoy can do: it is there to be lowered.
const unbounded = 100_000

// concurrentRetries is enough for the requests that fail in one moment when a server
// vanishes: some seconds of what it got.
const concurrentRetries = 10_000

// Default is what holds without a --config file.
func Default() Policy {
	return Policy{
		Defaults: Service{
			Protocol:       HTTP1,
			LoadBalancing:  "round_robin",
			Locality:       balance.Weighted,
			Timeout:        Duration(15 * time.Second), // Envoy's own default
			IdleTimeout:    Duration(4 * time.Second),  // Node.js, uvicorn and Apache close after 5 s
			ConnectTimeout: Duration(2 * time.Second),  // a relay on another continent must fit
			Retries:        3,
			RetryBuffer:    8 * MiB,
			Limits:         Limits{Connections: unbounded, Pending: unbounded, Requests: unbounded, Retries: concurrentRetries},
			HealthCheck: HealthCheck{
				Protocol: Auto, Path: "/healthz", ExpectedStatuses: []Statuses{{200, 200}},
				Timeout: Duration(time.Second), UnhealthyThreshold: 2, HealthyThreshold: 1,
			},
			OutlierDetection: OutlierDetection{
				ConsecutiveGatewayErrors: 5, ConsecutiveConnectionFailures: 5,
				BaseEjectionTime: Duration(5 * time.Second), MaxEjectionPercent: 50,
			},
			OverprovisioningFactor: 140,
		},
		Ingress: Ingress{Port: IngressPort, Allow: []string{FromTailnet, FromLoopback}, AccessLog: LogNone},
	}
}

// For is the policy of a service.
func (p Policy) For(service string) Service {
	if s, ok := p.Services[service]; ok {
		return s
	}
	return p.Defaults
}

// What [Ingress.AccessLog] can be.
const (
	LogNone = "none"
	// LogErrors are requests and connections that failed: answered with 5xx, or
	// cut short, refused or retried in vain, which Envoy says by a flag.
	LogErrors = "errors"
	LogAll    = "all"
)

const (
	// IngressPort is where Envoys take requests, unless the policy says otherwise.
	IngressPort = 10000
)

// ByLoad weighs servers by what they report of their load in each answer (ORCA):
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/extensions/load_balancing_policies/client_side_weighted_round_robin/v3/client_side_weighted_round_robin.proto
const ByLoad = "client_side_weighted_round_robin"

// SpeaksGRPC tells whether gRPC clients can reach a service by themselves.
func (s Service) SpeaksGRPC() bool { return s.Protocol == GRPC || s.Protocol == HTTP2 }
