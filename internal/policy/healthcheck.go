package policy

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tailxds/tailxds/internal/yamldoc"
)

// Auto is a check in the protocol that the servers speak.
const Auto = "auto"

// HealthCheck is the active check of every endpoint by every Envoy.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/intro/arch_overview/upstream/health_checking
type HealthCheck struct {
	// Protocol is [Auto], or [HTTP1], [HTTP2], [GRPC] or [TCP], whatever the
	// servers speak besides: a check by TCP connects.
	Protocol string `yaml:"protocol"`
	// Port that is checked; 0 is that of requests.
	Port uint16 `yaml:"port"`
	// Path that is asked for, over HTTP.
	Path string `yaml:"path"`
	// ExpectedStatuses are healthy, over HTTP; others are not.
	ExpectedStatuses []Statuses `yaml:"expected_statuses"`
	// Host is the header Host of a check over HTTP, and the authority of one over
	// gRPC; empty is the first of the service's hosts that is no wildcard, or else
	// the service's name. Frameworks such as Django and Rails answer 400 to a host
	// that they do not know.
	Host string `yaml:"host"`
	// Service that grpc.health.v1.Health is asked for; empty is the whole server.
	// https://github.com/grpc/grpc/blob/master/doc/health-checking.md
	Service string `yaml:"service"`
	// Interval between two checks by one Envoy.
	Interval           Interval `yaml:"interval"`
	Timeout            Duration `yaml:"timeout"`
	UnhealthyThreshold uint32   `yaml:"unhealthy_threshold"`
	HealthyThreshold   uint32   `yaml:"healthy_threshold"`
}

// Statuses are those of HTTP from First to Last.
type Statuses struct{ First, Last int64 }

// String is 200, or 200-299.
func (s Statuses) String() string {
	if s.First == s.Last {
		return fmt.Sprint(s.First)
	}
	return fmt.Sprintf("%d-%d", s.First, s.Last)
}

// UnmarshalText reads 200, or 200-299.
func (s *Statuses) UnmarshalText(text []byte) error {
	first, last, isRange := strings.Cut(string(text), "-")
	if !isRange {
		last = first
	}
	low, errLow := strconv.ParseUint(first, 10, 16)
	high, errHigh := strconv.ParseUint(last, 10, 16)
	if errLow != nil || errHigh != nil || low < 100 || high > 599 || low > high {
		return fmt.Errorf("must be a status of HTTP, such as 200, or a range of them, such as 200-299, and not %s", yamldoc.Quoted(string(text)))
	}
	*s = Statuses{int64(low), int64(high)}
	return nil
}

// CheckedBy is the protocol in which a service's servers are checked.
func (s Service) CheckedBy() string {
	if s.HealthCheck.Protocol == Auto {
		return s.Protocol
	}
	return s.HealthCheck.Protocol
}

// checks hold each value of a health check to what Envoy takes.
func (h HealthCheck) checks() []check {
	return []check{
		oneOf("health_check.protocol", h.Protocol, checkedBys()),
		must("health_check.path", strings.HasPrefix(h.Path, "/") && visible(h.Path), "must begin with / and hold visible ASCII only: encode what else is wanted as %XX"),
		must("health_check.expected_statuses", len(h.ExpectedStatuses) > 0, "must name a status, such as 200"),
		must("health_check.host", h.Host == "" || !badAuthority(h.Host), "must be a host name or an IPv4 address, with or without a port, such as app.example.com"),
		must("health_check.service", len(h.Service) <= 255 && visible(h.Service), "must be the name of a gRPC service, such as acme.Shop"),
		must("health_check.interval", h.Interval == AutoInterval || h.Interval >= Interval(100*time.Millisecond) && h.Interval <= Interval(time.Hour), wantInterval),
		duration("health_check.timeout", h.Timeout, 10*time.Millisecond, time.Minute),
		number("health_check.unhealthy_threshold", h.UnhealthyThreshold, 1, 100),
		number("health_check.healthy_threshold", h.HealthyThreshold, 1, 100),
	}
}

// meaninglessChecks are the keys that say nothing of a check in this protocol.
func (s Service) meaninglessChecks() []check {
	const service = "has no meaning where the check is by "
	switch by := s.CheckedBy(); by {
	case TCP:
		return []check{
			must("health_check.path", false, service+"tcp: a check connects"),
			must("health_check.expected_statuses", false, service+"tcp: a check connects"),
			must("health_check.host", false, service+"tcp: a check connects"),
			must("health_check.service", false, service+"tcp: a check connects"),
		}
	case GRPC:
		return []check{
			must("health_check.path", false, service+"grpc, which asks the health service: see health_check.service"),
			must("health_check.expected_statuses", false, service+"grpc, which asks the health service: see health_check.service"),
		}
	default:
		return []check{must("health_check.service", false, service+by+": it is for grpc only")}
	}
}

// HostFor is the host by which requests most likely reach a service: the first of
// its hosts that is no wildcard, or else its name.
func (s Service) HostFor(name string) string {
	for _, host := range s.Hosts {
		if !strings.HasPrefix(host, "*") {
			return host
		}
	}
	return name
}
