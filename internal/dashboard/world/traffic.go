package main

import (
	"math"
	"slices"
	"time"

	"github.com/tailxds/tailxds/internal/dashboard"
)

// past makes up the last fifteen minutes, in step with the changes.
func (w *world) past() {
	s := &w.snapshot
	const steps, step = 180, 5 * time.Second
	w.history = dashboard.History{Start: w.ago(steps * step), Step: step.Milliseconds(), Regions: s.Regions, Shares: [][]int{}, Rate: []float64{}, Latency: [][2]float64{}}
	final := make([]float64, len(s.Regions))
	for i, server := range s.Servers {
		final[slices.Index(s.Regions, server.Region)] += w.expected[i]
	}
	for k := range steps {
		at := w.history.Start + int64(k)*w.history.Step
		if w.kind == silent || len(final) == 0 {
			w.history.Shares, w.history.Rate, w.history.Latency = append(w.history.Shares, []int{}), append(w.history.Rate, -1), append(w.history.Latency, [2]float64{-1, -1})
			continue
		}
		shares := slices.Clone(final)
		for _, c := range s.Changes {
			factor := map[string]float64{"drained": 1.32, "left": 1.25, "weight": 0.74}[c.Kind]
			i := slices.IndexFunc(s.Servers, func(x dashboard.Server) bool { return x.Name == c.Name })
			if at <= c.At && i >= 0 && factor > 0 {
				shares[slices.Index(s.Regions, s.Servers[i].Region)] *= factor
			}
		}
		row, sum := make([]int, len(shares)), 0.0
		for i := range shares {
			shares[i] *= 1 + 0.02*w.random.NormFloat64()
			sum += shares[i]
		}
		for i := range shares {
			row[i] = int(math.Round(1000 * shares[i] / sum))
		}
		wave := 1 + 0.08*math.Sin(float64(k)/22) + 0.05*math.Sin(float64(k)/7)
		p50 := 8 * wave * (1 + 0.02*w.random.NormFloat64())
		w.history.Shares = append(w.history.Shares, row)
		w.history.Rate = append(w.history.Rate, math.Round(w.demand*wave*(1+0.01*w.random.NormFloat64())))
		w.history.Latency = append(w.history.Latency, [2]float64{round(p50), round(p50 * (4 + 0.6*w.random.NormFloat64()))})
	}
}

// pass lets a second pass.
func (w *world) pass() {
	s := &w.snapshot
	w.now = w.now.Add(time.Second)
	t := dashboard.Tick{At: w.now.UnixMilli(), Window: 10_000, Reporting: len(s.Entries), Entries: [][4]float64{}, Flows: [][]float64{}, Servers: make([][6]float64, len(s.Servers))}
	if w.kind == silent {
		w.tick = w.silence(t)
		return
	}
	phase := float64(w.now.Unix())
	demand := w.demand * (1 + 0.06*math.Sin(phase/23) + 0.015*w.random.NormFloat64())
	calls := make([]float64, len(s.Regions))
	for r := range calls {
		calls[r] = demand / float64(len(calls)) * (1 + 0.3*math.Cos(float64(r)*2.1) + 0.05*math.Sin(phase/11+float64(r)))
		t.Flows = append(t.Flows, make([]float64, len(s.Servers)))
	}
	failed, crossing, total := 0.0, 0.0, 0.0
	for i, server := range s.Servers {
		share := w.expected[i]
		if i == w.odd() && w.sick() >= 0 {
			share *= 0.62
		}
		requests := 0.0
		for r := range calls {
			flow := calls[r] * share
			flow = round(max(0, flow+math.Sqrt(flow)*0.5*w.random.NormFloat64()))
			t.Flows[r][i] = flow
			requests += flow
			if s.Regions[r] != server.Region {
				crossing += flow
			}
		}
		errors := 0.0
		if i == w.odd() && w.sick() >= 0 {
			errors = round(requests * 0.021)
		}
		failed += errors
		total += requests
		n := float64(len(s.Entries))
		t.Servers[i] = [6]float64{round(requests), errors, 0, w.expected[i], n, n}
		if i == w.sick() {
			t.Servers[i][4] = 0
		}
	}
	for i := range t.Servers {
		t.Servers[i][2] = math.Round(1e4*t.Servers[i][0]/max(total, 1)) / 1e4
	}
	n := w.each()
	for i, e := range s.Entries {
		r := slices.Index(s.Regions, e.Region)
		rate := calls[r] / float64(n) * (1 + 0.35*math.Sin(float64(i)*1.7))
		p50 := 5 + 3*float64(r) + 1.4*math.Sin(float64(i)) + 0.3*w.random.NormFloat64()
		p99 := p50 * (3.6 + 0.5*math.Sin(float64(i)*2.3+phase/40))
		t.Entries = append(t.Entries, [4]float64{round(rate), 0, round(p50), round(p99)})
	}
	t.Total, t.Crossing = [4]float64{round(total), failed, 8.1, 74}, crossing/max(total, 1)
	w.tick = t
}

// silence is a tick when nobody reports.
func (w *world) silence(t dashboard.Tick) dashboard.Tick {
	t.Reporting, t.Total, t.Crossing = 0, [4]float64{-1, -1, -1, -1}, -1
	for i := range t.Servers {
		t.Servers[i] = [6]float64{-1, -1, -1, w.expected[i], 0, 0}
	}
	for range w.snapshot.Entries {
		t.Entries = append(t.Entries, [4]float64{-1, -1, -1, -1})
	}
	for range w.snapshot.Regions {
		t.Flows = append(t.Flows, slices.Repeat([]float64{-1}, len(t.Servers)))
	}
	return t
}

func round(x float64) float64 { return math.Round(x*10) / 10 }
