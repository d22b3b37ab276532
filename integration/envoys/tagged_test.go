package envoys_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/tailxds/tailxds/integration/envoys"
)

// tagRounds are enough for a 99th percentile that is not the largest.
const tagRounds = 100

// BenchmarkTags is how long a tag that is set by headscale's API is on its way
// until the last of four Envoys balances by it, beside a bare watcher of the
// netmap: a node of the same tailnet that does nothing but watch its own bus.
// `make bench` runs it.
func BenchmarkTags(b *testing.B) {
	if buildErr != nil {
		b.Fatal(buildErr)
	}
	for _, provider := range []string{"netmap", "headscale"} {
		b.Run(provider, func(b *testing.B) {
			for b.Loop() {
				measureTags(b, provider)
			}
		})
	}
}

func measureTags(b *testing.B, provider string) {
	t := envoys.New(b, programs).Tailnet()
	control := t.ControlPlane(provider)
	// By the same tags it is shown the same peers as the control plane.
	bare := t.Join("bare", "tag:control-plane").Watch()
	var servers []*envoys.Member
	var all []*envoys.Envoy
	for _, name := range []string{"a", "b", "c", "d"} {
		servers = append(servers, t.Join(name, "tag:region-west", "tag:weight-1"))
		all = append(all, control.EnvoyBeside(servers[len(servers)-1]))
	}
	for _, e := range all {
		e.AwaitHealthy("server", len(servers))
	}
	var watched, reached, ratios []float64
	weight := 1
	for round := range tagRounds {
		// Nothing that anybody does at fixed times may keep step with the rounds.
		time.Sleep(rand.N(300 * time.Millisecond)) //nolint:forbidigo // there is no event to await
		weight = weight%5 + 1
		device, tag := servers[round%len(servers)], fmt.Sprintf("tag:weight-%d", weight)
		start := time.Now()
		if err := t.SetTags(device, "tag:region-west", tag); err != nil {
			b.Fatal(err)
		}
		set := time.Since(start)
		w := bare.Await(device, tag).Sub(start)
		var last time.Duration
		for _, e := range all {
			last = max(last, e.AwaitWeight("server", device.Address, weight, start).Sub(start))
		}
		fmt.Println(round, set.Milliseconds(), w.Milliseconds(), last.Milliseconds())
		watched, reached = append(watched, ms(w)), append(reached, ms(last))
		ratios = append(ratios, ms(last)/ms(w))
	}
	for name, q := range map[string]float64{"p25": 0.25, "p50": 0.5, "p75": 0.75, "p99": 0.99} {
		b.ReportMetric(quantile(ratios, q), name+"-ratio")
		b.ReportMetric(quantile(reached, q), name+"-ms")
		b.ReportMetric(quantile(watched, q), name+"-bare-ms")
	}
	b.ReportMetric(0, "ns/op") // it is no time to compare
}

func ms(d time.Duration) float64 { return d.Seconds() * 1e3 }

func quantile(all []float64, q float64) float64 {
	return slices.Sorted(slices.Values(all))[int(math.Round(q*float64(len(all)-1)))]
}
