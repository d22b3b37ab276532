package telemetry

import (
	"math"
	"testing"
	"testing/synctest"
	"time"
)

func TestHistory_steps_haveTheirRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.SetPublished(published("s", "west", "east"))
		a, b := at(1).String(), at(2).String()
		time.Sleep(2 * time.Second) // reports do not come in step
		start := time.Now()
		sent := 0.0
		for i := range 12 { // a minute: first all to a, then all to b
			time.Sleep(5 * time.Second)
			e := &export{node: "n"}
			if i < 6 {
				e.endpoint("s", a, true, 50, 0, 0).endpoint("s", b, true, 0, 0, 0).times("s", []float64{10, 20}, 50, 0, 0)
			} else {
				e.endpoint("s", b, true, 50, 10, 0).times("s", []float64{10, 20}, 0, 50, 0)
			}
			r.send(e)
			sent += 50
		}
		h := r.History("s", time.Now())
		if len(h.Endpoints) != 2 || h.Step != 5*time.Second || h.Steps() != steps-1 {
			t.Fatalf("%d endpoints, %s, %d steps", len(h.Endpoints), h.Step, h.Steps())
		}
		total := func(list []float64) (sum float64) {
			for _, v := range list {
				sum += v * h.Step.Seconds()
			}
			return sum
		}
		// The newest step waits until all that it is of has been told.
		end := h.Start.Add(time.Duration(h.Steps()) * h.Step)
		if late := time.Since(end); late < 5*time.Second || late > 10*time.Second {
			t.Errorf("it ends %s ago", late)
		}
		told := 10 * end.Sub(start).Seconds()
		got := total(h.Endpoints[0].Requests) + total(h.Endpoints[1].Requests)
		if math.Abs(got-told) > 0.01 || math.Abs(total(h.Entries["west"])-told) > 0.01 {
			t.Errorf("%.2f requests, %.2f entered in west, want %.2f of the %.0f that were sent", got, total(h.Entries["west"]), told, sent)
		}
		if c := total(h.Crossing); math.Abs(c-total(h.Endpoints[1].Requests)) > 0.01 {
			t.Errorf("%.2f crossed, want those to b", c)
		}
		if e := total(h.Endpoints[1].Errors) / total(h.Endpoints[1].Requests); math.Abs(e-0.2) > 0.001 {
			t.Errorf("%.3f of b's requests failed, want 0.2", e)
		}
		last := h.Steps() - 1
		if h.Endpoints[0].Requests[last] != 0 || math.Abs(h.Endpoints[1].Requests[last]-10) > 0.001 || h.Latency[last].Quantile(0.5) < 10*time.Millisecond {
			t.Errorf("the last step: a %v, b %v, %s", h.Endpoints[0].Requests[last], h.Endpoints[1].Requests[last], h.Latency[last].Quantile(0.5))
		}
		time.Sleep(20 * time.Minute)
		if h := r.History("s", time.Now()); len(h.Endpoints) != 0 || total(h.Crossing) != 0 || len(h.Entries) != 0 {
			t.Errorf("after 20 minutes: %d endpoints", len(h.Endpoints))
		}
	})
}

// A request that begins before a report is taken and fails after it is a request
// of one report, and an error of the next. Nobody gets more errors than requests.
func TestExport_errorAfterItsRequest_countsOnce(t *testing.T) {
	for _, test := range []struct {
		name    string
		reports [][3]int64 // requests, errors, in flight
		errors  float64
	}{
		{"together", [][3]int64{{3, 2, 0}}, 2},
		{"in the next report", [][3]int64{{3, 0, 1}, {0, 1, 0}}, 1},
		{"between two counts of a report", [][3]int64{{3, 0, 0}, {0, 1, 0}}, 1},
		{"after a long time", [][3]int64{{3, 0, 1}, {0, 0, 1}, {0, 0, 1}, {0, 1, 0}}, 1},
		{"beside one that does well", [][3]int64{{1, 0, 1}, {1, 2, 0}}, 2},
		{"of no request", [][3]int64{{0, 4, 0}}, 0},
		{"more than there can be", [][3]int64{{3, 0, 1}, {0, 9, 9}, {0, 9, 9}, {1, 9, 9}}, 4},
		{"of a request that ended", [][3]int64{{3, 0, 0}, {0, 0, 0}, {0, 1, 0}}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.SetPublished(published("s", "west"))
				for _, n := range test.reports {
					time.Sleep(time.Second)
					r.send((&export{node: "n"}).endpoint("s", at(1).String(), true, n[0], n[1], n[2]))
				}
				time.Sleep(20 * time.Second)
				h := r.History("s", time.Now())
				got := 0.0
				for _, e := range h.Endpoints {
					for _, n := range e.Errors {
						got += n * h.Step.Seconds()
					}
				}
				if math.Abs(got-test.errors) > 0.001 {
					t.Errorf("%v errors, want %v", got, test.errors)
				}
			})
		})
	}
}
