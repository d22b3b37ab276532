package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"sync"
)

// regions are two regions 40 ms apart, with real Envoys, as a benchmark of the
// integration tests measures them, once for all rows that are of it.
type regions struct {
	once  sync.Once
	modes map[string]map[string]float64
	err   error
}

// measure runs the benchmark. It needs root, for its network namespaces.
func (r *regions) measure(ctx context.Context) (map[string]map[string]float64, error) {
	r.once.Do(func() {
		cmd := exec.CommandContext(ctx, "go", "test", "./envoys", "-run", "^$", "-bench", "^BenchmarkRegions$", "-benchtime", "1x")
		cmd.Dir = "../integration"
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := cmd.Run(); err != nil {
			r.err = fmt.Errorf("measure two regions by %s: %w\n%s", strings.Join(cmd.Args, " "), err, said.String())
			return
		}
		r.modes, r.err = readRegions(said.String())
	})
	return r.modes, r.err
}

// readRegions reads lines such as "BenchmarkRegions/nearest-2  1  10.1 crossing-%",
// which end in pairs of a value and its unit: the units' values by the modes' names.
func readRegions(text string) (map[string]map[string]float64, error) {
	modes := make(map[string]map[string]float64)
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || !strings.HasPrefix(fields[0], "BenchmarkRegions/") {
			continue
		}
		mode, _, _ := strings.Cut(strings.TrimPrefix(fields[0], "BenchmarkRegions/"), "-")
		values := make(map[string]float64)
		for i := 2; i+1 < len(fields); i += 2 {
			v, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return nil, fmt.Errorf("read %q: %w", line, err)
			}
			values[fields[i+1]] = v
		}
		modes[mode] = values
	}
	for _, mode := range []string{"nearest", "weighted", "failover"} {
		if len(modes[mode]) == 0 {
			return nil, fmt.Errorf("the benchmark told nothing of %s:\n%s", mode, text)
		}
	}
	return modes, nil
}

// leastCrossing is how many percent of the requests must cross in the benchmark's
// regions: 60 % enter where half of the weights are.
const leastCrossing = 10

// crossing compares how many requests cross a region with how many must.
func (r *regions) crossing(ctx context.Context, _ sizes) (figure, error) {
	modes, err := r.measure(ctx)
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
	modes, err := r.measure(ctx)
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
