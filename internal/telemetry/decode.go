package telemetry

import (
	"math"
	"net/netip"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	metrics "go.opentelemetry.io/proto/otlp/metrics/v1"

	"github.com/tailxds/tailxds/internal/traffic"
)

// What Envoy calls the things that are read here, as its sink writes them with
// tags as attributes. The endpoints' are cluster statistics that track_cluster_stats
// turns on:
// https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/upstream/cluster_manager/cluster_stats#per-endpoint-statistics
const (
	endpointRequests = "cluster.endpoint.rq_total"
	endpointErrors   = "cluster.endpoint.rq_error"
	endpointFails    = "cluster.endpoint.cx_connect_fail"
	endpointActive   = "cluster.endpoint.rq_active"
	endpointHealthy  = "cluster.endpoint.healthy"
	clusterTime      = "cluster.upstream_rq_time"

	ofCluster  = "envoy.cluster_name"
	ofEndpoint = "envoy.endpoint_address"
	nodeRegion = "cloud.region"
	nodeName   = "service.instance.id"
)

// said is what one report of an Envoy says.
type said struct {
	node, region string
	services     map[string]*saidService
}

// requests to all endpoints.
func (s said) requests() (sum float64) {
	for _, of := range s.services {
		for _, e := range of.endpoints {
			sum += e.requests
		}
	}
	return sum
}

type saidService struct {
	latency   traffic.Latency
	endpoints map[netip.AddrPort]*saidEndpoint
}

// nothing tells whether no request began or ended since the last report.
func (s saidService) nothing() bool {
	for _, e := range s.endpoints {
		if e.requests > 0 || e.errors > 0 {
			return false
		}
	}
	return s.latency.Count() == 0
}

// saidEndpoint is what happened to an endpoint since the last report, and how it
// is now.
type saidEndpoint struct {
	// tally holds totals until [endpointStats.difference], and what is new after.
	tally
	// hasTotals is whether the report has counters of the endpoint, and young whether
	// the Envoy has only just begun to count.
	hasTotals, young bool
	inFlight         uint64
	healthy          bool
}

// since makes of a total what was counted since another one; of all of it, if the
// Envoy began anew meanwhile.
func (e *saidEndpoint) since(last tally) {
	if e.requests >= last.requests && e.errors >= last.errors && e.fails >= last.fails {
		e.tally = tally{e.requests - last.requests, e.errors - last.errors, e.fails - last.fails}
	}
	e.tally = tally{min(e.requests, mostOfOne), min(e.errors, mostOfOne), min(e.fails, mostOfOne)}
}

// settle takes failed connections from the errors: Envoy counts them there, also
// where a health check made them, and no request was sent.
func (e *saidEndpoint) settle() { e.errors = max(0, e.errors-e.fails) }

// mostOfOne bounds what one report may claim of one endpoint, so that no sum
// ever overflows: more than any Envoy can do. mostOfAll bounds a total: up to it
// floats tell numbers apart.
const (
	mostOfOne = 1e9
	mostOfAll = 1 << 53
)

// counted is how long a counter has counted, by its Envoy's own clock; for ever if
// it does not tell.
func counted(point *metrics.NumberDataPoint) time.Duration {
	began, now := point.GetStartTimeUnixNano(), point.GetTimeUnixNano()
	// Envoy 1.40 tells when a total began in microseconds, and all else in
	// nanoseconds, which were this few in 1971 only.
	if began < 1<<55 {
		began *= 1_000
	}
	if began == 0 || now < began {
		return math.MaxInt64
	}
	return time.Duration(min(now-began, math.MaxInt64))
}

// youngFor is how long an Envoy may have counted when its first report counts whole.
const youngFor = 2 * usual

// decode reads a report of those services and endpoints that are known.
func decode(request *collector.ExportMetricsServiceRequest, known func(service string, endpoint netip.AddrPort) bool) said {
	s := said{services: make(map[string]*saidService)}
	for _, resource := range request.GetResourceMetrics() {
		for _, attribute := range resource.GetResource().GetAttributes() {
			switch attribute.GetKey() {
			case nodeRegion:
				s.region = attribute.GetValue().GetStringValue()
			case nodeName:
				s.node = attribute.GetValue().GetStringValue()
			}
		}
		for _, scope := range resource.GetScopeMetrics() {
			for _, metric := range scope.GetMetrics() {
				s.read(metric, known)
			}
		}
	}
	return s
}

func (s *said) read(metric *metrics.Metric, known func(string, netip.AddrPort) bool) {
	add := func(to func(*saidEndpoint) *float64) {
		sum := metric.GetSum()
		// Envoys send totals, because a request for /stats takes from differences:
		// docs/adr/023-totals.md. All else would count requests twice.
		if sum.GetAggregationTemporality() != metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE {
			return
		}
		for _, point := range sum.GetDataPoints() {
			if e := s.endpoint(point.GetAttributes(), known); e != nil {
				at := to(e)
				*at = min(*at+float64(max(point.GetAsInt(), 0)), mostOfAll)
				e.hasTotals, e.young = true, counted(point) <= youngFor
			}
		}
	}
	set := func(to func(*saidEndpoint, int64)) {
		for _, point := range metric.GetGauge().GetDataPoints() {
			if e := s.endpoint(point.GetAttributes(), known); e != nil {
				to(e, min(max(point.GetAsInt(), 0), mostOfOne))
			}
		}
	}
	switch metric.GetName() {
	case endpointRequests:
		add(func(e *saidEndpoint) *float64 { return &e.requests })
	case endpointErrors:
		add(func(e *saidEndpoint) *float64 { return &e.errors })
	case endpointFails:
		add(func(e *saidEndpoint) *float64 { return &e.fails })
	case endpointActive:
		set(func(e *saidEndpoint, n int64) { e.inFlight = uint64(n) })
	case endpointHealthy:
		set(func(e *saidEndpoint, n int64) { e.healthy = n > 0 })
	case clusterTime:
		s.latency(metric.GetHistogram(), known)
	}
}

func (s *said) latency(histogram *metrics.Histogram, known func(string, netip.AddrPort) bool) {
	if histogram.GetAggregationTemporality() != metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_DELTA {
		return
	}
	for _, point := range histogram.GetDataPoints() {
		name := value(point.GetAttributes(), ofCluster)
		counts := point.GetBucketCounts()
		if !known(name, netip.AddrPort{}) || len(counts) > mostBuckets {
			continue
		}
		for _, n := range counts {
			if n > mostOfOne {
				return
			}
		}
		s.service(name).latency.Observe(point.GetExplicitBounds(), counts)
	}
}

// mostBuckets bounds the work that one histogram may make.
const mostBuckets = 1_000

func (s *said) service(name string) *saidService {
	of := s.services[name]
	if of == nil {
		of = &saidService{endpoints: make(map[netip.AddrPort]*saidEndpoint)}
		s.services[name] = of
	}
	return of
}

// endpoint is the one that a point is about; nil if nobody knows it.
func (s *said) endpoint(attributes []*common.KeyValue, known func(string, netip.AddrPort) bool) *saidEndpoint {
	address, err := netip.ParseAddrPort(value(attributes, ofEndpoint))
	name := value(attributes, ofCluster)
	if err != nil || !known(name, address) {
		return nil
	}
	of := s.service(name)
	e := of.endpoints[address]
	if e == nil {
		e = &saidEndpoint{}
		of.endpoints[address] = e
	}
	return e
}

func value(attributes []*common.KeyValue, key string) string {
	for _, a := range attributes {
		if a.GetKey() == key {
			return a.GetValue().GetStringValue()
		}
	}
	return ""
}
