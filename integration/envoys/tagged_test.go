package envoys_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/tailxds/tailxds/integration/harness"
)

// tagRounds are enough for a 99th percentile that is not the largest.
const tagRounds = 100

// BenchmarkTags is how long a tag that is set by headscale's API is on its way
// until the last of four Envoys balances by it, beside a bare watcher of the
// netmap: a node of the same tailnet that does nothing but watch its own bus.
// Both are taken of the same tag, from the moment at which headscale is asked.
// `make bench` runs it.
func BenchmarkTags(b *testing.B) {
	if buildErr != nil {
		b.Fatal(buildErr)
	}
	// Tags are set no oftener, at the mean, than the provider lists in the long run.
	for _, of := range []struct {
		provider string
		pause    time.Duration
	}{{"netmap", 200 * time.Millisecond}, {"headscale", time.Second}} {
		b.Run(of.provider, func(b *testing.B) {
			for b.Loop() {
				newTagged(b, of.provider).measure(b, of.pause)
			}
		})
	}
}

// tagged is a tailnet with four servers, an Envoy beside each.
type tagged struct {
	*harness.Tailnet
	servers []*harness.Member
	entries []*harness.Envoy
	bare    *harness.NetmapWatcher
}

func newTagged(b *testing.B, provider string) tagged {
	t := tagged{Tailnet: harness.New(b, programs).Tailnet()}
	control := t.ControlPlane(provider)
	// By the same tag it is shown the same peers as the control plane.
	t.bare = t.Join("bare", "tag:control-plane").Watch()
	for _, name := range []string{"a", "b", "c", "d"} {
		server := t.Join(name, "tag:region-west", "tag:weight-1")
		t.servers, t.entries = append(t.servers, server), append(t.entries, control.EnvoyBeside(server))
	}
	for _, e := range t.entries {
		e.AwaitHealthy("server", len(t.servers))
	}
	return t
}

// measure sets tags, and tells how long they took. Between two it lets up to a
// pause pass, so that nothing that is done at fixed times keeps step with it.
func (t tagged) measure(b *testing.B, pause time.Duration) {
	var watched, reached, ratios []float64
	for round := range tagRounds {
		<-time.After(rand.N(pause))
		bare, last := t.set(b, t.servers[round%len(t.servers)], 2+round/len(t.servers)%4)
		watched, reached = append(watched, bare.Seconds()*1e3), append(reached, last.Seconds()*1e3)
		ratios = append(ratios, last.Seconds()/bare.Seconds())
	}
	for name, all := range map[string][]float64{"ratio": ratios, "ms": reached, "bare-ms": watched} {
		slices.Sort(all)
		for _, percent := range []float64{25, 50, 75, 99} {
			b.ReportMetric(all[int(math.Round(percent/100*float64(len(all)-1)))], fmt.Sprintf("p%.0f-%s", percent, name))
		}
	}
	b.ReportMetric(0, "ns/op") // it is no time to compare
}

// set gives a server another weight, and tells how long that took to the bare
// watcher and to the last Envoy.
func (t tagged) set(b *testing.B, server *harness.Member, weight int) (bare, last time.Duration) {
	tag := fmt.Sprintf("tag:weight-%d", weight)
	start := time.Now()
	if err := t.SetTags(server, "tag:region-west", tag); err != nil {
		b.Fatal(err)
	}
	bare = t.bare.Await(server, tag).Sub(start)
	for _, e := range t.entries {
		last = max(last, e.AwaitWeight("server", server.Address, weight, start).Sub(start))
	}
	return bare, last
}
