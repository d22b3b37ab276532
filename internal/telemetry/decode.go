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

// Names of metrics and attributes, as Envoy's sink writes them with tags as
// attributes. The endpoints' are cluster statistics that track_cluster_stats turns
// on:
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

// report is one decoded report.
type report struct {
	node, region string
	services     map[string]*serviceReport
}

// requests returns the number of requests to all endpoints.
func (s report) requests() (sum float64) {
	for _, of := range s.services {
		for _, e := range of.endpoints {
			sum += e.requests
		}
	}
	return sum
}

type serviceReport struct {
	latency   traffic.Latency
	endpoints map[netip.AddrPort]*endpointReport
}

// isIdle reports whether no request began or ended since the last report.
func (s serviceReport) isIdle() bool {
	for _, e := range s.endpoints {
		if e.requests > 0 || e.errors > 0 {
			return false
		}
	}
	return s.latency.Count() == 0
}

// endpointReport is what happened at an endpoint since the last report, and its
// state.
type endpointReport struct {
	// counts holds totals until [endpointStats.difference], and what is new after.
	counts
	// hasTotals is whether the report has counters of the endpoint, and young whether
	// the Envoy has only just begun to count.
	hasTotals, young bool
	inFlight         uint64
	healthy          bool
}

// subtract replaces totals by what was counted since the last ones; by all of it, if
// the Envoy began anew meanwhile.
func (e *endpointReport) subtract(last counts) {
	if e.requests >= last.requests && e.errors >= last.errors && e.fails >= last.fails {
		e.counts = counts{e.requests - last.requests, e.errors - last.errors, e.fails - last.fails}
	}
	e.counts = counts{min(e.requests, maxDelta), min(e.errors, maxDelta), min(e.fails, maxDelta)}
}

// excludeConnectFails subtracts failed connections from the errors: Envoy counts
// them there, even if a health check made them and no request was sent.
func (e *endpointReport) excludeConnectFails() { e.errors = max(0, e.errors-e.fails) }

// maxDelta bounds what one report may claim of one endpoint, so that no sum ever
// overflows. maxTotal bounds a total: floats are exact up to it.
const (
	maxDelta = 1e9
	maxTotal = 1 << 53
)

// countingFor returns for how long a counter has counted, by its Envoy's own clock;
// for ever if it does not say.
func countingFor(point *metrics.NumberDataPoint) time.Duration {
	began, now := point.GetStartTimeUnixNano(), point.GetTimeUnixNano()
	// Envoy 1.40 writes when a total began in microseconds, and all else in
	// nanoseconds, which were this few in 1971 only.
	if began < 1<<55 {
		began *= 1_000
	}
	if began == 0 || now < began {
		return math.MaxInt64
	}
	return time.Duration(min(now-began, math.MaxInt64))
}

// maxYoungAge is for how long an Envoy may have counted if its first report counts
// whole.
const maxYoungAge = 2 * defaultInterval

// decode reads what a report says of known services and endpoints.
func decode(request *collector.ExportMetricsServiceRequest, known func(service string, endpoint netip.AddrPort) bool) report {
	s := report{services: make(map[string]*serviceReport)}
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

func (s *report) read(metric *metrics.Metric, known func(string, netip.AddrPort) bool) {
	add := func(to func(*endpointReport) *float64) {
		sum := metric.GetSum()
		// Envoys send totals, because a request for /stats takes from differences:
		// docs/adr/023-totals.md. All else would count requests twice.
		if sum.GetAggregationTemporality() != metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE {
			return
		}
		for _, point := range sum.GetDataPoints() {
			if e := s.endpoint(point.GetAttributes(), known); e != nil {
				at := to(e)
				*at = min(*at+float64(max(point.GetAsInt(), 0)), maxTotal)
				e.hasTotals, e.young = true, countingFor(point) <= maxYoungAge
			}
		}
	}
	set := func(to func(*endpointReport, int64)) {
		for _, point := range metric.GetGauge().GetDataPoints() {
			if e := s.endpoint(point.GetAttributes(), known); e != nil {
				to(e, min(max(point.GetAsInt(), 0), maxDelta))
			}
		}
	}
	switch metric.GetName() {
	case endpointRequests:
		add(func(e *endpointReport) *float64 { return &e.requests })
	case endpointErrors:
		add(func(e *endpointReport) *float64 { return &e.errors })
	case endpointFails:
		add(func(e *endpointReport) *float64 { return &e.fails })
	case endpointActive:
		set(func(e *endpointReport, n int64) { e.inFlight = uint64(n) })
	case endpointHealthy:
		set(func(e *endpointReport, n int64) { e.healthy = n > 0 })
	case clusterTime:
		s.latency(metric.GetHistogram(), known)
	}
}

func (s *report) latency(histogram *metrics.Histogram, known func(string, netip.AddrPort) bool) {
	if histogram.GetAggregationTemporality() != metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_DELTA {
		return
	}
	for _, point := range histogram.GetDataPoints() {
		name := attributeValue(point.GetAttributes(), ofCluster)
		counts := point.GetBucketCounts()
		if !known(name, netip.AddrPort{}) || len(counts) > maxBuckets {
			continue
		}
		for _, n := range counts {
			if n > maxDelta {
				return
			}
		}
		s.service(name).latency.Observe(point.GetExplicitBounds(), counts)
	}
}

// maxBuckets bounds the work of one histogram.
const maxBuckets = 1_000

func (s *report) service(name string) *serviceReport {
	of := s.services[name]
	if of == nil {
		of = &serviceReport{endpoints: make(map[netip.AddrPort]*endpointReport)}
		s.services[name] = of
	}
	return of
}

// endpoint returns the report of the endpoint that a point is about; nil if it is
// unknown.
func (s *report) endpoint(attributes []*common.KeyValue, known func(string, netip.AddrPort) bool) *endpointReport {
	address, err := netip.ParseAddrPort(attributeValue(attributes, ofEndpoint))
	name := attributeValue(attributes, ofCluster)
	if err != nil || !known(name, address) {
		return nil
	}
	of := s.service(name)
	e := of.endpoints[address]
	if e == nil {
		e = &endpointReport{}
		of.endpoints[address] = e
	}
	return e
}

func attributeValue(attributes []*common.KeyValue, key string) string {
	for _, a := range attributes {
		if a.GetKey() == key {
			return a.GetValue().GetStringValue()
		}
	}
	return ""
}
