package main

import (
	"context"
	"fmt"
	"strings"
)

// regions are two regions 40 ms apart, with real Envoys, measured once for all
// rows that are of it.
type regions struct{ once benchmark }

func newRegions() *regions {
	return &regions{benchmark{name: "BenchmarkRegions", cases: []string{"nearest", "weighted", "failover"}}}
}

// leastCrossing is how many percent of the requests must cross in the benchmark's
// regions: 60 % enter where half of the weights are.
const leastCrossing = 10

// crossing compares how many requests cross a region with how many must.
func (r *regions) crossing(ctx context.Context, _ sizes) (figure, error) {
	modes, err := r.once.measure(ctx)
	if err != nil {
		return figure{}, err
	}
	got, even := modes["nearest"]["crossing-%"], modes["weighted"]["crossing-%"]
	return figure{
		value: fmt.Sprintf("%+.1f points", got-leastCrossing), ok: got <= leastCrossing+1,
		detail: fmt.Sprintf("60 %% of the requests enter where half of the weights are. %.1f %% cross, where %d %% must, and %.1f %% do by even spreading: %.1f times as many.",
			got, leastCrossing, even, even/got),
	}, nil
}

// latency tells how long callers wait, by each mode.
func (r *regions) latency(ctx context.Context, _ sizes) (figure, error) {
	modes, err := r.once.measure(ctx)
	if err != nil {
		return figure{}, err
	}
	names := map[string]string{"nearest": "`nearest`", "weighted": "`weighted`", "failover": "static priorities"}
	var detail []string
	for _, mode := range []string{"nearest", "weighted", "failover"} {
		m := modes[mode]
		detail = append(detail, fmt.Sprintf("%s: p50 %.1f and %.1f ms, p99 %.1f and %.1f ms at the entries of west and east, %.1f %% cross, and no server's share is further from its weight than %.1f points",
			names[mode], m["west-p50-ms"], m["east-p50-ms"], m["west-p99-ms"], m["east-p99-ms"], m["crossing-%"], m["off-points"]))
	}
	p50 := func(mode string) float64 { return modes[mode]["west-p50-ms"] }
	return figure{
		value: fmt.Sprintf("%.1f against %.1f and %.1f ms", p50("nearest"), p50("weighted"), p50("failover")), ok: true,
		detail: strings.Join(detail, "; ") + ". Static priorities are quick because each region keeps what enters there, whatever the weights.",
	}, nil
}
