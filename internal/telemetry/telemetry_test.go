package telemetry

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	metrics "go.opentelemetry.io/proto/otlp/metrics/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"

	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/traffic"
)

const (
	delta       = metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_DELTA
	cumulative  = metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE
	unspecified = metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_UNSPECIFIED
)

func text(key, value string) *common.KeyValue {
	return &common.KeyValue{Key: key, Value: &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: value}}}
}

func of(service, endpoint string) []*common.KeyValue {
	return []*common.KeyValue{text("envoy.cluster_name", service), text("envoy.endpoint_address", endpoint), text("envoy.endpoint_hostname", "x")}
}

// export is a report as an Envoy sends it.
type export struct {
	node, region string
	metrics      []*metrics.Metric
}

func (e *export) counter(name, service, endpoint string, temporality metrics.AggregationTemporality, n int64) *export {
	point := &metrics.NumberDataPoint{Attributes: of(service, endpoint), Value: &metrics.NumberDataPoint_AsInt{AsInt: n}}
	e.metrics = append(e.metrics, &metrics.Metric{Name: name, Data: &metrics.Metric_Sum{Sum: &metrics.Sum{
		AggregationTemporality: temporality, IsMonotonic: true, DataPoints: []*metrics.NumberDataPoint{point},
	}}})
	return e
}

func (e *export) gauge(name, service, endpoint string, n int64) *export {
	point := &metrics.NumberDataPoint{Attributes: of(service, endpoint), Value: &metrics.NumberDataPoint_AsInt{AsInt: n}}
	e.metrics = append(e.metrics, &metrics.Metric{Name: name, Data: &metrics.Metric_Gauge{Gauge: &metrics.Gauge{DataPoints: []*metrics.NumberDataPoint{point}}}})
	return e
}

func (e *export) times(service string, bounds []float64, counts ...uint64) *export {
	point := &metrics.HistogramDataPoint{Attributes: of(service, "")[:1], ExplicitBounds: bounds, BucketCounts: counts}
	e.metrics = append(e.metrics, &metrics.Metric{Name: "cluster.upstream_rq_time", Data: &metrics.Metric_Histogram{Histogram: &metrics.Histogram{
		AggregationTemporality: delta, DataPoints: []*metrics.HistogramDataPoint{point},
	}}})
	return e
}

// endpoint tells of one as Envoy does: gauges always, counters if they moved.
func (e *export) endpoint(service, endpoint string, healthy bool, requests, errors, inFlight int64) *export {
	well := int64(0)
	if healthy {
		well = 1
	}
	e.gauge("cluster.endpoint.healthy", service, endpoint, well).gauge("cluster.endpoint.rq_active", service, endpoint, inFlight)
	for name, n := range map[string]int64{"rq_total": requests, "rq_success": requests - errors, "rq_error": errors} {
		if n > 0 {
			e.counter("cluster.endpoint."+name, service, endpoint, delta, n)
		}
	}
	return e
}

// together makes one metric of those with the same name, as Envoy does where
// its sink has conversions.
func (e *export) together() {
	by := make(map[string]*metrics.Metric)
	for _, m := range e.metrics {
		first := by[m.GetName()]
		switch {
		case first == nil:
			by[m.GetName()] = m
		case m.GetSum() != nil:
			first.GetSum().DataPoints = append(first.GetSum().DataPoints, m.GetSum().GetDataPoints()...)
		case m.GetGauge() != nil:
			first.GetGauge().DataPoints = append(first.GetGauge().DataPoints, m.GetGauge().GetDataPoints()...)
		}
	}
	e.metrics = slices.Collect(maps.Values(by))
}

func (e *export) request() *collector.ExportMetricsServiceRequest {
	return &collector.ExportMetricsServiceRequest{ResourceMetrics: []*metrics.ResourceMetrics{{
		Resource:     &resource.Resource{Attributes: []*common.KeyValue{text("service.instance.id", e.node), text("cloud.region", e.region)}},
		ScopeMetrics: []*metrics.ScopeMetrics{{Metrics: e.metrics}},
	}}}
}

// published is a service of endpoints with one address and weight each.
func published(service string, regions ...string) topology.Topology {
	var all []topology.Endpoint
	for i, region := range regions {
		all = append(all, topology.Endpoint{Device: fmt.Sprint(i + 1), Weight: 1, Region: region, State: topology.Serving, Address: at(i + 1)})
	}
	return topology.Topology{Services: []topology.Service{topology.NewService(service, all)}}
}

func at(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)}), 8080)
}

// rig is a receiver with callers of the test's choice.
type rig struct {
	*Receiver
	t   *testing.T
	who Caller
	// counters turns what tests count since the last report into totals, as Envoys
	// send them.
	counters counters
	envoy    string // whose counters they are, if not that of the node's name
}

// counters are the totals of Envoys.
type counters map[string]int64

// toTotals replaces an export's counts by totals. An endpoint that the export lacks
// starts from nothing when it is back, as in Envoy.
func (c counters) toTotals(of string, request *collector.ExportMetricsServiceRequest) {
	listed, sent := make(map[string]bool), make(map[string]bool)
	id := func(attributes []*common.KeyValue) string {
		return of + " " + attributeValue(attributes, ofCluster) + " " + attributeValue(attributes, ofEndpoint) + " "
	}
	all := request.GetResourceMetrics()[0].GetScopeMetrics()[0].GetMetrics()
	for _, m := range all {
		for _, p := range m.GetGauge().GetDataPoints() {
			listed[id(p.GetAttributes())] = true
		}
		if m.GetSum().GetAggregationTemporality() != delta {
			continue
		}
		m.GetSum().AggregationTemporality = cumulative
		for _, p := range m.GetSum().GetDataPoints() {
			key := id(p.GetAttributes())
			listed[key] = true
			sent[key+m.GetName()] = true
			c[key+m.GetName()] += p.GetAsInt()
			p.Value = &metrics.NumberDataPoint_AsInt{AsInt: c[key+m.GetName()]}
			p.StartTimeUnixNano, p.TimeUnixNano = 1<<56, 1<<56+1 // it has just begun to count
		}
	}
	scope := request.GetResourceMetrics()[0].GetScopeMetrics()[0]
	for key, n := range c {
		if !strings.HasPrefix(key, of+" ") || sent[key] {
			continue
		}
		parts := strings.Fields(key)
		if !listed[key[:strings.LastIndexByte(key, ' ')+1]] {
			delete(c, key)
			continue
		}
		again := (&export{}).counter(parts[3], parts[1], parts[2], cumulative, n)
		scope.Metrics = append(scope.Metrics, again.metrics...)
	}
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, counters: make(counters), who: Caller{Device: "entry", Address: netip.MustParseAddr("100.64.9.9"), Region: "west", Known: true}}
	r.Receiver = NewReceiver(func(context.Context) Caller { return r.who }, time.Now)
	return r
}

func (r *rig) send(e *export) {
	r.t.Helper()
	request := e.request()
	r.counters.toTotals(cmp.Or(r.envoy, r.who.Address.String()+"/"+e.node), request)
	if _, err := r.Export(r.t.Context(), request); err != nil {
		r.t.Fatal(err)
	}
}

// byRegion are the requests of all who reported.
func (r *rig) byRegion() map[string]float64 {
	sums := make(map[string]float64)
	for of, n := range r.Requests() {
		sums[of.Region] += n
	}
	return sums
}

// askAll reports one request to each endpoint of some services.
func (r *rig) askAll(services ...topology.Service) {
	r.t.Helper()
	e := &export{node: "n"}
	for _, s := range services {
		for _, p := range s.Serving() {
			e.counter("cluster.endpoint.rq_total", s.Name, p.Address.String(), delta, 1)
		}
	}
	r.send(e)
}

func TestRequests_reports_areCountedByRegion(t *testing.T) {
	r := newRig(t)
	r.SetPublished(published("s", "west", "east"))
	want := func(want map[string]float64) {
		t.Helper()
		if got := r.byRegion(); !maps.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	const total = "cluster.endpoint.rq_total"
	a, b := at(1).String(), at(2).String()
	r.send((&export{region: "east"}).counter(total, "s", a, delta, 3).counter(total, "s", b, delta, 4)) // the tailnet knows better
	r.send((&export{region: "west"}).counter(total, "s", a, delta, 5))
	want(map[string]float64{"west": 12})
	want(map[string]float64{}) // each is told once
	r.send((&export{}).counter("cluster.endpoint.rq_error", "s", a, delta, 5))
	r.send((&export{}).counter(total, "s", a, unspecified, 5))
	r.send((&export{}).counter(total, "s", a, delta, -5).counter(total, "s", a, delta, 0))
	r.send((&export{}).counter(total, "other", a, delta, 5).counter(total, "s", "100.64.0.1:8081", delta, 5).counter(total, "s", "nonsense", delta, 5))
	r.send(&export{})
	want(map[string]float64{})

	r.who.Known, r.who.Region = false, "" // without a tailnet, what an Envoy says of itself counts
	r.send((&export{region: "east"}).counter(total, "s", a, delta, 6))
	r.send((&export{}).counter(total, "s", a, delta, 7))
	want(map[string]float64{"east": 6})
	r.who.Address = addressOf(9)
	for i := range 100 * maxRegionClaims {
		r.send((&export{region: fmt.Sprint(i)}).counter(total, "s", a, delta, 1))
	}
	if n := len(r.byRegion()); n != maxRegionClaims {
		t.Errorf("%d regions are remembered, want at most %d", n, maxRegionClaims)
	}
	r.who.Address = addressOf(7)
	r.send((&export{region: "east"}).counter(total, "s", a, delta, 6)) // beside one that makes regions up
	want(map[string]float64{"east": 6})
	r.who.Known = true // a device without a region enters nowhere
	r.send((&export{region: "east"}).counter(total, "s", a, delta, 6))
	want(map[string]float64{})
}

func TestView_reports_areOfTheLastSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.SetPublished(published("s", "west", "east"))
		a, b := at(1).String(), at(2).String()
		endpoints := func() []traffic.Endpoint {
			t.Helper()
			v := r.View(time.Now())
			if len(v.Envoys) != 1 || len(v.Envoys[0].Services) != 1 {
				t.Fatalf("%+v", v)
			}
			return v.Envoys[0].Services[0].Endpoints
		}
		for range 4 {
			time.Sleep(5 * time.Second)
			r.send((&export{node: "n"}).endpoint("s", a, true, 50, 5, 2).endpoint("s", b, false, 0, 0, 0).
				counter("cluster.endpoint.rq_error", "s", b, delta, 7).counter("cluster.endpoint.cx_connect_fail", "s", b, delta, 7).
				times("s", []float64{10, 20}, 0, 50, 0))
		}
		want := []traffic.Endpoint{
			{Address: at(1), Healthy: true, Requests: 10, Errors: 1, InFlight: 2},
			{Address: at(2), ConnectFails: 1.4}, // what health checks could not reach is no failed request
		}
		if got := endpoints(); !slices.Equal(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		e := r.View(time.Now()).Envoys[0]
		if e.Device != "entry" || e.Node != "n" || e.Region != "west" || e.Stale || e.Over != 10*time.Second {
			t.Errorf("%+v", e)
		}
		if l := e.Services[0].Latency; l.Count() != 100 || l.Quantile(0.5) != 15*time.Millisecond {
			t.Errorf("%v requests, median %s", l.Count(), l.Quantile(0.5))
		}
		for range 3 { // now nothing but silence from the requests' side
			time.Sleep(5 * time.Second)
			r.send((&export{node: "n"}).endpoint("s", a, true, 0, 0, 0))
		}
		if got := endpoints(); !slices.Equal(got, []traffic.Endpoint{{Address: at(1), Healthy: true}}) {
			t.Errorf("after the requests' end, and of an endpoint that is told of no more: %+v", got)
		}
		time.Sleep(20 * time.Second)
		if v := r.View(time.Now()); len(v.Envoys) != 1 || !v.Envoys[0].Stale {
			t.Errorf("silent for 20 s: %+v", v)
		}
		time.Sleep(forgetAfter)
		if v := r.View(time.Now()); len(v.Envoys) != 0 || r.endpointStatsCount != 0 {
			t.Errorf("silent for 15 minutes: %+v, %d cells", v, r.endpointStatsCount)
		}
	})
}

// Who reports is told by its connection, where that is known: several Envoys of one
// address may share a bootstrap, and with it the name that their reports have.
func TestExport_sharedNodeName_connectionTellsTheEnvoy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.SetPublished(published("s", "west"))
		send := func(envoy, connection, said string, requests int64) {
			t.Helper()
			r.envoy, r.who.Node = envoy, connection
			r.send((&export{node: said}).endpoint("s", at(1).String(), true, requests, 0, 0))
		}
		want := func(want string) {
			t.Helper()
			got := ""
			for _, e := range r.View(time.Now()).Envoys {
				got += fmt.Sprintf("%s %v, ", e.Node, e.Services[0].Endpoints[0].Requests)
			}
			if got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		time.Sleep(5 * time.Second)
		send("1", "", "shared", 50) // its stream is on its way
		want("shared 10, ")
		time.Sleep(5 * time.Second)
		send("1", "one", "shared", 50)
		want("one 10, ") // it is the same, and keeps its figures
		send("2", "two", "shared", 100)
		want("one 10, two 20, ")
		time.Sleep(5 * time.Second)
		send("1", "", "shared", 50) // over a new connection, before its stream
		send("2", "two", "shared", 100)
		send("1", "one", "shared", 0)
		want("one 10, two 20, ")
		if r.endpointStatsCount != 2 {
			t.Errorf("%d cells are counted of 2", r.endpointStatsCount)
		}
		r.who.Address = netip.MustParseAddr("100.64.9.8")
		send("3", "one", "one", 50) // of another address
		want("one 10, one 10, two 20, ")
	})
}
