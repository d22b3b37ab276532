package report

import (
	"context"
	"fmt"
	"maps"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	metrics "go.opentelemetry.io/proto/otlp/metrics/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
)

// export is what an Envoy of a region sends: a counter's points.
func export(region, name string, temporality metrics.AggregationTemporality, points ...int64) *collector.ExportMetricsServiceRequest {
	sum := &metrics.Sum{AggregationTemporality: temporality}
	for _, n := range points {
		sum.DataPoints = append(sum.DataPoints, &metrics.NumberDataPoint{Value: &metrics.NumberDataPoint_AsInt{AsInt: n}})
	}
	return &collector.ExportMetricsServiceRequest{ResourceMetrics: []*metrics.ResourceMetrics{{
		Resource: &resource.Resource{Attributes: []*common.KeyValue{
			{Key: "service.instance.id", Value: &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: "n"}}},
			{Key: "cloud.region", Value: &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: region}}},
		}},
		ScopeMetrics: []*metrics.ScopeMetrics{{Metrics: []*metrics.Metric{
			{Name: "cluster.upstream_rq_total", Data: &metrics.Metric_Sum{Sum: sum}},
			{Name: name, Data: &metrics.Metric_Sum{Sum: sum}},
		}}},
	}}}
}

const (
	delta      = metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_DELTA
	cumulative = metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE
)

func TestRequestsAreCountedByTheRegionWhereTheyEnter(t *testing.T) {
	who := Caller{Region: "west", Known: true}
	r := NewReceiver(func(context.Context) Caller { return who })
	send := func(request *collector.ExportMetricsServiceRequest) {
		t.Helper()
		if _, err := r.Export(t.Context(), request); err != nil {
			t.Fatal(err)
		}
	}
	want := func(want map[string]float64) {
		t.Helper()
		if got := r.Requests(); !maps.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	send(export("east", "cluster.endpoint.rq_total", delta, 3, 4)) // the tailnet knows better
	send(export("west", "cluster.endpoint.rq_total", delta, 5))
	want(map[string]float64{"west": 12})
	want(map[string]float64{}) // each is told once
	send(export("west", "cluster.endpoint.rq_error", delta, 5))
	send(export("west", "cluster.endpoint.rq_total", cumulative, 5))
	send(export("west", "cluster.endpoint.rq_total", delta, -5, 0))
	send(&collector.ExportMetricsServiceRequest{})
	want(map[string]float64{})

	who = Caller{} // without a tailnet, what an Envoy says of itself counts
	send(export("east", "cluster.endpoint.rq_total", delta, 6))
	send(export("", "cluster.endpoint.rq_total", delta, 7))
	want(map[string]float64{"east": 6})
	for i := range 2 * mostRegions {
		send(export(fmt.Sprint(i), "cluster.endpoint.rq_total", delta, 1))
	}
	if n := len(r.Requests()); n != mostRegions {
		t.Errorf("%d regions are remembered, want at most %d", n, mostRegions)
	}
	who = Caller{Known: true} // a device without a region enters nowhere
	send(export("east", "cluster.endpoint.rq_total", delta, 6))
	want(map[string]float64{})
}
