// Package report receives what Envoys measure: how many requests they sent to
// whom, in OpenTelemetry's protocol, from Envoy's own sink.
//
// See https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/extensions/stat_sinks/open_telemetry/v3/open_telemetry.proto
package report

import (
	"context"
	"sync"

	collector "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	metrics "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/grpc"
)

// Caller is who reports, as the tailnet knows it.
type Caller struct {
	// Region is the caller's; Known is false where the tailnet can't tell, so
	// that what the Envoy says of itself counts.
	Region string
	Known  bool
}

// Receiver keeps what Envoys report. Its memory is bounded by the number of
// regions: it keeps sums.
type Receiver struct {
	collector.UnimplementedMetricsServiceServer
	caller func(context.Context) Caller

	mu       sync.Mutex
	requests map[string]float64
}

// NewReceiver returns a receiver that asks caller who makes a call.
func NewReceiver(caller func(context.Context) Caller) *Receiver {
	return &Receiver{caller: caller, requests: make(map[string]float64)}
}

// Register adds the receiver to a gRPC server.
func (r *Receiver) Register(s grpc.ServiceRegistrar) { collector.RegisterMetricsServiceServer(s, r) }

// Export implements the OTLP metrics service.
func (r *Receiver) Export(ctx context.Context, request *collector.ExportMetricsServiceRequest) (*collector.ExportMetricsServiceResponse, error) {
	who := r.caller(ctx)
	sent, said := count(request)
	if !who.Known {
		who.Region = said
	}
	if sent > 0 && who.Region != "" {
		r.mu.Lock()
		defer r.mu.Unlock()
		// A peer can make up no more regions than it has tags; one without a
		// tailnet is nobody's.
		if _, known := r.requests[who.Region]; known || len(r.requests) < mostRegions {
			r.requests[who.Region] += sent
		}
	}
	return &collector.ExportMetricsServiceResponse{}, nil
}

// mostRegions bounds what callers without a tailnet can make up.
const mostRegions = 1_000

// Requests are how many requests entered in each region since the last call.
func (r *Receiver) Requests() map[string]float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.requests
	r.requests = make(map[string]float64)
	return out
}

// What Envoy calls the things that are read here.
const (
	endpointRequests = "cluster.endpoint.rq_total"
	nodeRegion       = "cloud.region"
)

// count is how many requests an Envoy sent to endpoints, and the region that it
// says it is in.
func count(request *collector.ExportMetricsServiceRequest) (sent float64, region string) {
	for _, resource := range request.GetResourceMetrics() {
		for _, attribute := range resource.GetResource().GetAttributes() {
			if attribute.GetKey() == nodeRegion {
				region = attribute.GetValue().GetStringValue()
			}
		}
		for _, scope := range resource.GetScopeMetrics() {
			for _, metric := range scope.GetMetrics() {
				if metric.GetName() == endpointRequests {
					sent += sum(metric)
				}
			}
		}
	}
	return sent, region
}

// sum adds up the points of a counter that tells differences. Others would count
// the same requests again and again.
func sum(metric *metrics.Metric) (total float64) {
	counter := metric.GetSum()
	if counter.GetAggregationTemporality() != metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_DELTA {
		return 0
	}
	for _, point := range counter.GetDataPoints() {
		if n := point.GetAsInt(); n > 0 {
			total += float64(n)
		}
	}
	return total
}
