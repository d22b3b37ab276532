package telemetry

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"google.golang.org/protobuf/proto"

	"github.com/tailxds/tailxds/internal/topology"
)

// endpoints are n addresses, of some devices.
func endpoints(n int) []topology.Endpoint {
	all := make([]topology.Endpoint, n)
	for i := range all {
		all[i] = topology.Endpoint{Device: fmt.Sprint(i), Weight: 1, Region: "west", State: topology.Serving, Address: at(i + 1)}
	}
	return all
}

func addressOf(i int) netip.Addr { return netip.AddrFrom4([4]byte{100, 100, byte(i >> 8), byte(i)}) }

func TestExport_manyEnvoys_areBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.SetPublished(published("s", "west"))
		hello := func(address netip.Addr, node string) {
			r.who.Address = address
			r.send((&export{node: node}).endpoint("s", at(1).String(), true, 1, 0, 0))
		}
		count := func() int { return len(r.View(time.Now()).Envoys) }
		for i := range 3 * maxEnvoysPerAddress {
			hello(addressOf(0), fmt.Sprint("made up ", i))
		}
		if n := count(); n != maxEnvoysPerAddress {
			t.Fatalf("one address has %d Envoys, want at most %d", n, maxEnvoysPerAddress)
		}
		for i := range maxEnvoys {
			hello(addressOf(i+1), "n")
		}
		if n := count(); n != maxEnvoys {
			t.Fatalf("%d Envoys, want at most %d", n, maxEnvoys)
		}
		// Who is new takes the place of who is silent, and of nobody else.
		time.Sleep(time.Minute)
		hello(addressOf(0), "made up 0")
		hello(addressOf(0), "new")
		names := ""
		for _, e := range r.View(time.Now()).Envoys {
			if e.Address == addressOf(0) && !e.Stale {
				names += e.Node + " "
			}
		}
		if names != "made up 0 new " || count() != maxEnvoys {
			t.Errorf("%q of %d", names, count())
		}
		hello(addressOf(1), strings.Repeat("x", maxName+1))
		for _, e := range r.View(time.Now()).Envoys {
			if len(e.Node) > maxName {
				t.Error("a name that long is kept")
			}
		}
	})
}

func TestExport_manyEndpoints_areBounded(t *testing.T) {
	const each = 10_000
	r := newRig(t)
	r.SetPublished(topology.Topology{Services: []topology.Service{topology.NewService("s", endpoints(each))}})
	e := &export{node: "n"}
	for i := range each {
		e.gauge("cluster.endpoint.healthy", "s", at(i+1).String(), 1)
	}
	for i := range maxEndpointStats/each + 3 {
		r.who.Address = addressOf(i)
		r.send(e)
	}
	if r.endpointStatsCount != maxEndpointStats {
		t.Errorf("%d cells, want at most %d", r.endpointStatsCount, maxEndpointStats)
	}
}

func TestExport_manyServices_historiesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var all topology.Topology
		for i := range maxHistories + 10 {
			all.Services = append(all.Services, topology.NewService(fmt.Sprint("s", i), endpoints(30)))
		}
		r.SetPublished(all)
		r.askAll(all.Services...)
		if len(r.histories) != maxHistories || r.historyEndpoints != maxHistoryEndpoints {
			t.Fatalf("%d histories of %d endpoints, want at most %d and %d", len(r.histories), r.historyEndpoints, maxHistories, maxHistoryEndpoints)
		}
		// Those that got nothing for as long as it lasts make room.
		time.Sleep(steps * stepTime)
		for _, s := range all.Services {
			r.askAll(s)
		}
		if len(r.histories) != maxHistories || r.historyEndpoints > maxHistoryEndpoints {
			t.Errorf("%d histories of %d endpoints", len(r.histories), r.historyEndpoints)
		}
		sum := 0
		for _, h := range r.histories {
			sum += len(h.endpoints)
		}
		if sum != r.historyEndpoints {
			t.Errorf("%d endpoints are recorded, and %d counted", sum, r.historyEndpoints)
		}
		r.who.Region = ""
		r.who.Known = false
		for i := range 2 * maxHistoryRegions {
			r.send((&export{node: "n", region: fmt.Sprint("r", i)}).counter("cluster.endpoint.rq_total", "s3", at(1).String(), delta, 1))
		}
		for name, h := range r.histories {
			if len(h.entries) > maxHistoryRegions {
				t.Errorf("%s has entries in %d regions", name, len(h.entries))
			}
		}
	})
}

// What nobody publishes is nobody's: a peer can tell of it as much as it likes.
func TestExport_unpublishedEndpoints_areIgnored(t *testing.T) {
	r := newRig(t)
	r.send((&export{node: "n"}).endpoint("s", at(1).String(), true, 5, 0, 0)) // nothing is
	r.SetPublished(published("s", "west"))
	e := &export{node: "n"}
	for i := range 100 {
		e.endpoint(fmt.Sprint("made up ", i), at(1).String(), true, 5, 0, 0)
		e.endpoint("s", at(i+2).String(), true, 5, 0, 0).times(fmt.Sprint("made up ", i), []float64{1}, 1, 0)
	}
	r.send(e)
	for _, e := range r.View(time.Now()).Envoys {
		if len(e.Services) > 0 {
			t.Errorf("%+v", e)
		}
	}
	if len(r.histories) != 0 || r.endpointStatsCount != 0 {
		t.Errorf("%d histories, %d cells", len(r.histories), r.endpointStatsCount)
	}
}

// Whatever bytes arrive, reading them ends, and what is kept makes sense.
func FuzzExport(f *testing.F) {
	for _, name := range []string{"testdata/envoy.pb"} {
		raw, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		request := &collector.ExportMetricsServiceRequest{}
		if proto.Unmarshal(raw, request) != nil {
			return
		}
		now := time.Unix(1_000_000, 0)
		r := NewReceiver(func(context.Context) Caller { return Caller{} }, func() time.Time { return now })
		all := endpoints(4)
		for i, address := range []string{"127.0.0.11:8080", "127.0.0.12:8080", "[::1]:8080"} {
			all[i].Address = netip.MustParseAddrPort(address) // of the seed
		}
		known := topology.Topology{Services: []topology.Service{topology.NewService("server", all)}}
		r.SetPublished(known)
		for range 3 {
			now = now.Add(5 * time.Second)
			if _, err := r.Export(t.Context(), request); err != nil {
				t.Fatal(err)
			}
		}
		for _, e := range r.View(now).Envoys {
			for _, s := range e.Services {
				if p := s.Latency.Quantile(0.99); p < 0 || s.Latency.Count() < 0 {
					t.Errorf("%s of %v", p, s.Latency.Count())
				}
				for _, p := range s.Endpoints {
					if p.Requests < 0 || p.Errors > p.Requests || p.ConnectFails < 0 || p.Requests > maxDelta {
						t.Errorf("%+v", p)
					}
				}
			}
		}
		for _, e := range r.History("server", now).Endpoints {
			requests, errors := 0.0, 0.0
			for i, n := range e.Requests {
				if n < 0 || e.Errors[i] < 0 {
					t.Errorf("%v errors of %v", e.Errors[i], n)
				}
				requests, errors = requests+n, errors+e.Errors[i]
			}
			if errors > requests*1.01 {
				t.Errorf("%v errors of %v", errors, requests)
			}
		}
	})
}

// BenchmarkExport is a report as Envoys send it, of 50 endpoints, from a
// thousand Envoys in turn: reading its bytes, and remembering them.
func BenchmarkExport(b *testing.B) {
	const n = 50
	now := time.Unix(1_000_000, 0)
	who := Caller{Known: true, Region: "east"}
	r := NewReceiver(func(context.Context) Caller { return who }, func() time.Time { return now })
	r.SetPublished(topology.Topology{Services: []topology.Service{topology.NewService("s", endpoints(n))}})
	e := &export{node: "n"}
	for i := range n {
		e.endpoint("s", at(i+1).String(), true, 50, 1, 1)
	}
	e.times("s", []float64{1, 2, 5, 10, 20, 50, 100}, 1, 2, 3, 4, 5, 6, 7, 8)
	e.together()
	for _, m := range e.metrics {
		if m.GetSum() != nil {
			m.GetSum().AggregationTemporality = cumulative
		}
	}
	raw, err := proto.Marshal(e.request())
	if err != nil {
		b.Fatal(err)
	}
	send := func(i int) {
		who.Address = addressOf(i % 1000)
		now = now.Add(5 * time.Millisecond)
		request := &collector.ExportMetricsServiceRequest{}
		if err := proto.Unmarshal(raw, request); err != nil {
			b.Fatal(err)
		}
		if _, err := r.Export(b.Context(), request); err != nil {
			b.Fatal(err)
		}
	}
	for i := range 1000 {
		send(i)
	}
	b.ReportAllocs()
	i, before := 0, processor(b)
	defer func() {
		b.ReportMetric(float64(processor(b)-before)/float64(time.Microsecond)/float64(b.N), "cpu-us/op") // others may be at work here
	}()
	for b.Loop() {
		i++
		send(i)
	}
}

// processor is the time that this process has had a processor for.
func processor(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkView is a look at what a thousand Envoys measured of 50 endpoints.
func BenchmarkView(b *testing.B) {
	now := time.Unix(1_000_000, 0)
	who := Caller{Known: true, Region: "east"}
	r := NewReceiver(func(context.Context) Caller { return who }, func() time.Time { return now })
	r.SetPublished(topology.Topology{Services: []topology.Service{topology.NewService("s", endpoints(50))}})
	e := &export{node: "n"}
	for i := range 50 {
		e.endpoint("s", at(i+1).String(), true, 50, 1, 1)
	}
	for i := range 1000 {
		who.Address = addressOf(i)
		if _, err := r.Export(b.Context(), e.request()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	before := processor(b)
	defer func() {
		b.ReportMetric(float64(processor(b)-before)/float64(time.Microsecond)/float64(b.N), "cpu-us/op")
	}()
	for b.Loop() {
		if n := len(r.View(now).Envoys); n != 1000 {
			b.Fatal(n)
		}
	}
}

// An endpoint that is told of no more makes room for others, once its last requests
// are too old to count; so does its service.
func TestExport_endpointsNoLongerReported_areForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.SetPublished(published("s", "west", "east"))
		one := func() *export { return (&export{node: "n"}).endpoint("s", at(1).String(), true, 50, 0, 0) }
		both := func() *export { return one().endpoint("s", at(2).String(), true, 50, 0, 0) }
		for range 4 {
			time.Sleep(5 * time.Second)
			r.send(both())
		}
		for range 4 {
			time.Sleep(5 * time.Second)
			r.send(one())
		}
		if r.endpointStatsCount != 1 {
			t.Errorf("%d cells of one endpoint", r.endpointStatsCount)
		}
		for range 4 {
			time.Sleep(5 * time.Second)
			r.send(&export{node: "n"})
		}
		if e := r.View(time.Now()).Envoys[0]; r.endpointStatsCount != 0 || len(e.Services) != 0 {
			t.Errorf("of an Envoy that tells nothing: %d cells, %+v", r.endpointStatsCount, e.Services)
		}
	})
}

// A service has a history from its first request on.
func TestExport_firstRequest_beginsAHistory(t *testing.T) {
	quiet := func() *export { return (&export{node: "n"}).endpoint("s", at(1).String(), true, 0, 0, 3) }
	for name, c := range map[string]struct {
		told *export
		want int
	}{
		"healthy and quiet": {quiet(), 0},
		"empty histogram":   {quiet().times("s", []float64{10}, 0, 0), 0},
		"a request":         {quiet().counter("cluster.endpoint.rq_total", "s", at(1).String(), delta, 1), 1},
		"a time":            {quiet().times("s", []float64{10}, 1, 0), 1},
	} {
		r := newRig(t)
		r.SetPublished(published("s", "west"))
		r.send(c.told)
		if got := len(r.histories); got != c.want {
			t.Errorf("%s: %d histories, want %d", name, got, c.want)
		}
	}
}

// When all places are taken, a service takes that of one that got nothing for as
// long as a history lasts, and of no other.
func TestExport_historiesAreFull_replacesAnIdleOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var all topology.Topology
		for i := range maxHistories + 1 {
			all.Services = append(all.Services, topology.NewService(fmt.Sprint("s", i), endpoints(1)))
		}
		r.SetPublished(all)
		idle, busy, next := all.Services[0], all.Services[1:maxHistories], all.Services[maxHistories]
		has := func(s topology.Service) bool { return len(r.History(s.Name, time.Now()).Endpoints) > 0 }
		r.askAll(append(busy, idle)...)
		time.Sleep((steps - 1) * stepTime)
		r.askAll(busy...)
		r.askAll(next)
		if r.histories[next.Name] != nil {
			t.Errorf("it has a place after %s", (steps-1)*stepTime)
		}
		time.Sleep(stepTime)
		r.askAll(next)
		time.Sleep(2 * stepTime) // the newest step is shown once it is over
		if !has(next) || r.histories[idle.Name] != nil {
			t.Errorf("after %s it has a place: %t; the idle one has none: %t", steps*stepTime, has(next), r.histories[idle.Name] == nil)
		}
		for _, s := range busy {
			if !has(s) {
				t.Errorf("%s, which is busy, was forgotten", s.Name)
			}
		}
	})
}

// An Envoy that reports each second is stale after 10 s of silence, and forgotten
// after 15 minutes, not sooner.
func TestView_silentEnvoy_isStaleAndThenForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.SetPublished(published("s", "west"))
		for range 5 {
			time.Sleep(time.Second)
			r.send((&export{node: "n"}).endpoint("s", at(1).String(), true, 1, 0, 0))
		}
		last := time.Now()
		for _, c := range []struct {
			after time.Duration
			want  string
		}{
			{staleAfter, "1, stale false"},
			{staleAfter + 1, "1, stale true"},
			{forgetAfter, "1, stale true"},
			{forgetAfter + 1, "0, stale false"},
		} {
			time.Sleep(time.Until(last.Add(c.after)))
			all := r.View(time.Now()).Envoys
			if got := fmt.Sprintf("%d, stale %t", len(all), len(all) > 0 && all[0].Stale); got != c.want {
				t.Errorf("after %s: %s, want %s", c.after, got, c.want)
			}
		}
	})
}

// What is as long as may be is taken; one more is not.
func TestExport_nameOrHistogramAtItsBound_isTaken(t *testing.T) {
	for _, more := range []int{0, 1} {
		r := newRig(t)
		r.SetPublished(published("s", "west"))
		node := strings.Repeat("x", maxName+more)
		r.send((&export{node: node}).endpoint("s", at(1).String(), true, 1, 0, 0))
		e := r.View(time.Now()).Envoys[0]
		if got := e.Node == node; got != (more == 0) {
			t.Errorf("a name of %d: taken %t", len(node), got)
		}
	}
	for _, more := range []int{0, 1} {
		r := newRig(t)
		r.SetPublished(published("s", "west"))
		counts := make([]uint64, maxBuckets+more)
		counts[0] = 1
		bounds := make([]float64, len(counts)-1)
		for i := range bounds {
			bounds[i] = float64(i + 1)
		}
		r.send((&export{node: "n"}).times("s", bounds, counts...))
		if got := len(r.histories) == 1; got != (more == 0) {
			t.Errorf("a histogram of %d buckets: taken %t", len(counts), got)
		}
	}
}
