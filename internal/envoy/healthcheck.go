package envoy

import (
	"cmp"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/tailxds/tailxds/internal/policy"
)

// healthCheck is a service's check as Envoy takes it.
func healthCheck(name string, p policy.Service) *core.HealthCheck {
	h := p.HealthCheck
	interval := protoDuration(policy.Duration(cmp.Or(h.Interval, policy.Interval(minInterval))))
	check := &core.HealthCheck{
		Timeout:            protoDuration(h.Timeout),
		Interval:           interval,
		UnhealthyThreshold: wrapperspb.UInt32(h.UnhealthyThreshold),
		HealthyThreshold:   wrapperspb.UInt32(h.HealthyThreshold),
		// Envoy checks a cluster without traffic every 60 s only, by default.
		NoTrafficInterval: interval,
		// Spread, so that many Envoys do not check a server in step.
		IntervalJitterPercent: 10,
	}
	if !checksReuse(p) {
		check.ReuseConnection = wrapperspb.Bool(false)
	}
	host := cmp.Or(h.Host, p.HostFor(name))
	overHTTP := &core.HealthCheck_HttpHealthCheck{Host: host, Path: h.Path, ExpectedStatuses: statusRanges(h)}
	switch p.CheckedBy() {
	case policy.GRPC:
		check.HealthChecker = &core.HealthCheck_GrpcHealthCheck_{GrpcHealthCheck: &core.HealthCheck_GrpcHealthCheck{ServiceName: h.Service, Authority: host}}
		return check
	case policy.TCP:
		check.HealthChecker = &core.HealthCheck_TcpHealthCheck_{TcpHealthCheck: &core.HealthCheck_TcpHealthCheck{}} // it connects
		return check
	case policy.HTTP2:
		// The check does not follow what the cluster speaks.
		overHTTP.CodecClientType = typev3.CodecClientType_HTTP2
	}
	check.HealthChecker = &core.HealthCheck_HttpHealthCheck_{HttpHealthCheck: overHTTP}
	return check
}

// checksReuse reports whether a check goes over the connection of the one before. It does
// not where servers may have closed that by then: the check would fail with it.
func checksReuse(p policy.Service) bool {
	longest := time.Duration(cmp.Or(p.HealthCheck.Interval, policy.Interval(minInterval))) * 11 / 10 // with the jitter
	return p.IdleTimeout == 0 || longest < time.Duration(p.IdleTimeout)
}

// statusRanges are the ranges that Envoy takes. Its default, 200 alone,
// is left out.
func statusRanges(h policy.HealthCheck) []*typev3.Int64Range {
	if slices.Equal(h.ExpectedStatuses, []policy.Statuses{{First: 200, Last: 200}}) {
		return nil
	}
	var all []*typev3.Int64Range
	for _, s := range h.ExpectedStatuses {
		all = append(all, &typev3.Int64Range{Start: s.First, End: s.Last + 1})
	}
	return all
}

// protoDuration converts a duration of the policy to Envoy's.
func protoDuration(d policy.Duration) *durationpb.Duration { return durationpb.New(time.Duration(d)) }

// With as many Envoys as servers, checks grow with the square of their number.
// Where the policy leaves the interval to the control plane, it grows with the
// Envoys instead, so that a server is asked no more than so often however many
// they are. Between checks, retries and the ejection of servers that fail real
// requests carry on.
const (
	// maxChecksPerSecond is how often a second one server is checked, by all Envoys
	// together.
	maxChecksPerSecond = 50
	// minInterval and seldomest bound the interval; the second is where a check
	// would find nothing out any more.
	minInterval = time.Second
	maxInterval = time.Hour
)

// checkEvery is the interval for so many Envoys. It goes in powers of two, since
// a changed interval is a changed cluster for every Envoy, and grows shorter than
// the last only once they are half as many as that would bear.
func checkEvery(envoys int, last time.Duration) time.Duration {
	every := minInterval
	for every < maxInterval && float64(envoys) > maxChecksPerSecond*every.Seconds() {
		every *= 2
	}
	if every < last && float64(envoys) > maxChecksPerSecond*last.Seconds()/4 {
		return last
	}
	return min(every, maxInterval)
}

// Checks are the health checks of Envoys where the policy leaves the interval of health
// checks to the control plane.
type Checks struct {
	// Envoys is how many are reckoned with: the devices that serve, each of which
	// may have one, or those that are connected, if they are more.
	Envoys int
	// Every is the interval between two checks of a server by one Envoy.
	Every time.Duration
}

// next are the checks for other numbers. The devices are what two control planes
// agree on, whoever is connected to which.
func (c Checks) next(devices, connected int) Checks {
	n := max(devices, connected)
	return Checks{n, checkEvery(n, c.Every)}
}
