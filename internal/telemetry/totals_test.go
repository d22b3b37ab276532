package telemetry

import (
	"maps"
	"testing"
	"testing/synctest"
	"time"
)

// totals is a report of totals, by an Envoy that has counted for so long.
func totals(requests, errors, fails int64, counted time.Duration) *export {
	e := &export{node: "n"}
	e.gauge("cluster.endpoint.healthy", "s", at(1).String(), 1)
	for name, n := range map[string]int64{"rq_total": requests, "rq_error": errors, "cx_connect_fail": fails} {
		e.counter("cluster.endpoint."+name, "s", at(1).String(), cumulative, n)
	}
	now := time.Now()
	for _, m := range e.metrics {
		for _, p := range m.GetSum().GetDataPoints() {
			p.StartTimeUnixNano, p.TimeUnixNano = uint64(now.Add(-counted).UnixMicro()), uint64(now.UnixNano()) // as Envoy does
		}
	}
	return e
}

// Envoys tell totals: what is new of them counts, once.
func TestExport_totals_countWhatIsNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.SetPublished(published("s", "west"))
		want := func(why string, requests float64) {
			t.Helper()
			got, none := r.byRegion(), map[string]float64{}
			if requests > 0 {
				none["west"] = requests
			}
			if !maps.Equal(got, none) {
				t.Errorf("%s: %v, want %v", why, got, requests)
			}
		}
		send := func(e *export) {
			time.Sleep(5 * time.Second)
			r.send(e)
		}
		send(totals(2e9, 70, 20, time.Hour))
		want("an Envoy that has counted for long, and was not heard of", 0)
		send(totals(2e9+50, 75, 24, time.Hour))
		want("and now is", 50)
		if e := r.View(time.Now()).Envoys[0].Services[0].Endpoints[0]; e.Requests != 5 || e.Errors != 0.1 || e.ConnectFails != 0.4 {
			t.Errorf("its figures: %+v", e)
		}
		send(totals(2e9+50, 75, 24, time.Hour))
		want("nothing new", 0)
		send(totals(20, 0, 0, time.Hour))
		want("the endpoint was gone and came back meanwhile", 20)
		send((&export{node: "n"}).gauge("cluster.endpoint.healthy", "s", at(2).String(), 1))
		want("the endpoint is gone", 0)
		send(totals(30, 0, 0, time.Hour))
		want("and is back, and counted from nothing", 30)
		send((&export{node: "n"}).gauge("cluster.endpoint.healthy", "s", at(1).String(), 1))
		want("what never moved is not told", 0)
		time.Sleep(time.Minute)
		send(totals(90, 0, 0, time.Hour))
		want("nobody knows when that was", 0)
		send(totals(97, 0, 0, time.Hour))
		want("after a silence", 7)

		r.who.Address = addressOf(1)
		send(totals(7, 0, 0, maxYoungAge+1))
		want("an Envoy that may have told another control plane before", 0)
		r.who.Address = addressOf(2)
		send(totals(7, 0, 0, maxYoungAge))
		want("an Envoy that has just started", 7)
		nano := totals(7, 0, 0, maxYoungAge)
		for _, m := range nano.metrics {
			for _, p := range m.GetSum().GetDataPoints() {
				p.StartTimeUnixNano *= 1000
			}
		}
		r.who.Address = addressOf(4)
		r.send(nano)
		want("one that tells in nanoseconds", 7)
		r.who.Address = addressOf(5)
		r.send((&export{node: "n"}).counter("cluster.endpoint.rq_total", "s", at(1).String(), cumulative, 7))
		want("one that does not tell", 0)
		r.who.Address = addressOf(3)
		send((&export{node: "n"}).gauge("cluster.endpoint.healthy", "s", at(1).String(), 1))
		send(totals(7, 0, 0, time.Hour))
		want("an endpoint's first requests at an Envoy that is known", 7)
	})
}
