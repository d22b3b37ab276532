package main

import (
	"context"
	"fmt"
	"math"
)

// row is a line of the table.
type row struct {
	name string
	// what is measured, beside what, and what is to be reached.
	what, beside, target string
	run                  func(context.Context, sizes) (figure, error)
}

// figure is what was measured.
type figure struct {
	value string // as the table shows it
	ok    bool   // whether it reaches the target
	// detail says in words what lies behind the value, and what limits it.
	detail string
}

// sizes are how much is done: all of it, or just so much that everything runs.
type sizes struct {
	rounds, clients, services, reconnects, seconds, requests int
}

var (
	full  = sizes{rounds: 15, clients: 1_000, services: 100, reconnects: 10_000, seconds: 10, requests: 400_000}
	quick = sizes{rounds: 5, clients: 50, services: 10, reconnects: 200, seconds: 1, requests: 5_000}
)

// ratio is a figure that must not exceed a limit.
func ratio(s series, limit float64, detail string, args ...any) figure {
	return figure{value: s.String(), ok: s.median() <= limit, detail: fmt.Sprintf(detail, args...)}
}

// near is a ratio of one that must not be further from 1 than some part of it.
func near(r, within float64, detail string, args ...any) figure {
	return figure{value: fmt.Sprintf("%.3f", r), ok: math.Abs(r-1) <= within, detail: fmt.Sprintf(detail, args...)}
}

func rows() []row {
	two, tagged, through := newRegions(), newTags(), &proxies{}
	return []row{
		{
			"fanout-100", "change → last ACK, 100 clients, 100 endpoints", "a bare gRPC fan-out of the same bytes", "≤ 1.5",
			func(ctx context.Context, s sizes) (figure, error) {
				return fanout(ctx, s, s.clients/10, 100, "bare", 1.5)
			},
		},
		{
			"fanout-1000", "change → last ACK, 1,000 clients, 100 endpoints", "a bare gRPC fan-out of the same bytes", "≤ 1.5",
			func(ctx context.Context, s sizes) (figure, error) { return fanout(ctx, s, s.clients, 100, "bare", 1.5) },
		},
		{
			"snapshots-100", "change → last ACK, 100 clients, 100 endpoints", "go-control-plane's SnapshotCache, a key a node", "≤ 0.7",
			func(ctx context.Context, s sizes) (figure, error) {
				return fanout(ctx, s, s.clients/10, 100, "snapshots", 0.7)
			},
		},
		{
			"snapshots-1000", "change → last ACK, 1,000 clients, 100 endpoints", "go-control-plane's SnapshotCache, a key a node", "≤ 0.7",
			func(ctx context.Context, s sizes) (figure, error) {
				return fanout(ctx, s, s.clients, 100, "snapshots", 0.7)
			},
		},
		{
			"fanout-large", "change → last ACK, 1,000 clients, 1,000 endpoints", "a bare gRPC fan-out of the same bytes", "≤ 1.5",
			func(ctx context.Context, s sizes) (figure, error) {
				return fanout(ctx, s, s.clients, 1_000, "bare", 1.5)
			},
		},
		{"stalled", "memory while a fifth of the clients does not read, after 30 more changes", "itself before them", "≤ 1.05", stalled},
		{"growth-cpu", "CPU a change, 100 → 10,000 devices, the changed service fixed", "itself with 100", "≤ 1.2", growthCPU},
		{"growth-bytes", "bytes a change, 100 → 10,000 devices, the changed service fixed", "itself with 100", "≤ 1.2", growthBytes},
		{"others", "bytes to clients of other services, in 30 changes", "none", "0", others},
		{"stream", "memory of the control plane a stream", "a bare gRPC server", "≤ 1.5", perStream},
		{"reconnects", "memory after 10,000 reconnects", "itself before", "± 5 %", reconnects},
		{"burst", "1,000 changes a second for 10 s: what reaches an Envoy", "", "last state exact, ≤ 20 a second", burst},
		{
			"tags-ratio", "tag set on headscale → last of four Envoys, `netmap` provider", "a bare watcher of the netmap in the same tailnet",
			"≤ 1.05", tagged.ratio,
		},
		{"tags-netmap", "p99 of the same", "", "≤ 250 ms", tagged.slowest("netmap")},
		{"tags-headscale", "p99 of the same, `headscale` provider", "", "≤ 250 ms", tagged.slowest("headscale")},
		{
			"requests", "requests a second of CPU through Envoy by our configuration", "the same Envoy by a bare static one", "≥ 0.98",
			through.requests(byHandBare, 0.98),
		},
		{
			"requests-same", "the same", "the same Envoy by a static one, written by hand, that does the same with each request", "≥ 0.98",
			through.requests(byHandSame, 0.98),
		},
		{"crossing", "`nearest`: requests that cross a region", "the least possible by the weights", "≤ +1 point", two.crossing},
		{"latency", "p50 at the busier entry, 40 ms between regions, `nearest`", "`weighted`, and a static Envoy with failover priorities", "told", two.latency},
		{"reports", "10,000 reports of Envoys a minute: CPU of the control plane", "", "≤ 5 % of a core, memory bounded", reports},
	}
}
