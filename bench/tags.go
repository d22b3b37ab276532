package main

import (
	"context"
	"fmt"
)

// tags are a tailnet of the lab's headscale with the real control plane, by each
// of two providers, and four real Envoys; measured once for all rows that are of it.
type tags struct{ once benchmark }

func newTags() *tags {
	return &tags{benchmark{name: "BenchmarkTags", cases: []string{"netmap", "headscale"}}}
}

// ratio compares how long a tag takes to the last Envoy and to a bare watcher.
func (t *tags) ratio(ctx context.Context, _ sizes) (figure, error) {
	all, err := t.once.measure(ctx)
	if err != nil {
		return figure{}, err
	}
	m := all["netmap"]
	return figure{
		value: fmt.Sprintf("%.2f (%.2f to %.2f)", m["p50-ratio"], m["p25-ratio"], m["p75-ratio"]), ok: m["p50-ratio"] <= 1.05,
		detail: fmt.Sprintf("%.0f ms against %.0f ms at the median, 100 tags. Both hold what headscale takes to answer its API and to tell its nodes.",
			m["p50-ms"], m["p50-bare-ms"]),
	}, nil
}

// slowest is how long a tag takes to the last Envoy, but for one in a hundred.
func (t *tags) slowest(provider string) func(context.Context, sizes) (figure, error) {
	return func(ctx context.Context, _ sizes) (figure, error) {
		all, err := t.once.measure(ctx)
		if err != nil {
			return figure{}, err
		}
		m := all[provider]
		return figure{
			value: fmt.Sprintf("%.0f ms", m["p99-ms"]), ok: m["p99-ms"] <= 250,
			detail: fmt.Sprintf("%.0f ms at the median, of 100 tags. Meanwhile the bare watcher's p99 was %.0f ms, and %.0f ms its median.",
				m["p50-ms"], m["p99-bare-ms"], m["p50-bare-ms"]),
		}, nil
	}
}
