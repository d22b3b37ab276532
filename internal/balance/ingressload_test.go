package balance

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func published(e IngressLoad) string {
	var all []string
	for _, region := range slices.Sorted(maps.Keys(e.Published)) {
		all = append(all, fmt.Sprintf("%s=%d", region, e.Published[region]))
	}
	return strings.Join(all, " ")
}

// device is a reporter in a region.
func device(n byte, region string) Reporter {
	return Reporter{netip.AddrFrom4([4]byte{100, 64, 0, n}), region}
}

// west and east are the only Envoys of their regions.
var west, east = device(1, "west"), device(2, "east")

const every = 2 * time.Second

func TestNext_reports_areFollowed(t *testing.T) {
	var e IngressLoad
	envoys := map[string]int{"west": 2, "east": 2}
	step := func(want string, news bool, requests map[Reporter]float64) {
		t.Helper()
		next, changed := e.Next(requests, envoys, 5*time.Second)
		e = next
		if got := published(e); got != want || changed != news {
			t.Errorf("got %s, news %t; want %s, %t", got, changed, want, news)
		}
	}
	step("east=5000 west=5000", true, nil) // nothing is measured: by the Envoys
	step("east=5000 west=5000", false, nil)
	step("east=2500 west=7500", true, map[Reporter]float64{west: 750, east: 250})
	step("east=2500 west=7500", false, map[Reporter]float64{west: 700, east: 250}) // not worthwhile
	step("east=5128 west=4872", true, map[Reporter]float64{west: 250, east: 750})  // of the last ten seconds
	for range 3 {
		e, _ = e.Next(map[Reporter]float64{west: 250, east: 750}, envoys, 5*time.Second)
	}
	if got := published(e); got != "east=7500 west=2500" {
		t.Errorf("it settles at %s", got)
	}
	// A region whose Envoys are idle stays known, one without any is forgotten.
	for range 2 {
		e, _ = e.Next(map[Reporter]float64{east: 1000}, envoys, 5*time.Second)
	}
	if got := published(e); got != "east=9999 west=1" {
		t.Errorf("of an idle region: %s", got)
	}
	envoys["west"], envoys["eu"] = 0, 0
	e, _ = e.Next(map[Reporter]float64{east: 1000}, envoys, 5*time.Second)
	if got := published(e); got != "east=10000" {
		t.Errorf("got %s", got)
	}
}

// run takes the same requests a second for some steps of two seconds, and
// returns the share of west in percent.
func (e *IngressLoad) run(n int, rates map[Reporter]float64) float64 {
	for range n {
		requests := make(map[Reporter]float64)
		for r, rate := range rates {
			requests[r] = rate * every.Seconds()
		}
		*e, _ = e.Next(requests, map[string]int{"west": 1, "east": 1}, every)
	}
	weights := make(map[string]float64)
	for region, w := range e.Published {
		weights[region] = float64(w)
	}
	return 100 * normalize(weights)["west"]
}

// An Envoy that really has ten times as many requests is believed within seconds.
func TestNext_honestBurst_countsWithinSeconds(t *testing.T) {
	var e IngressLoad
	if got := e.run(20, map[Reporter]float64{west: 50, east: 50}); got != 50 {
		t.Fatalf("west has %v %%", got)
	}
	for i, least := range []float64{53, 62, 74, 81, 85, 87, 89, 89} {
		if got := e.run(1, map[Reporter]float64{west: 500, east: 50}); got < least || got > 91 {
			t.Errorf("%v after the burst began west has %.1f %%, want %v", time.Duration(i+1)*every, got, least)
		}
	}
	// And it is forgotten as fast.
	if got := e.run(5, map[Reporter]float64{west: 50, east: 50}); got < 49 || got > 51 {
		t.Errorf("ten seconds after it ended west has %.1f %%", got)
	}
	// What begins everywhere at once is believed at once.
	e = IngressLoad{}
	e.run(30, nil)
	if got := e.run(1, map[Reporter]float64{west: 900, east: 100}); got != 90 {
		t.Errorf("after an idle time west has %.1f %%", got)
	}
	// An Envoy that was away for half a minute need not begin anew.
	e.run(30, map[Reporter]float64{west: 900, east: 100})
	e.run(15, map[Reporter]float64{east: 100})
	if got := e.run(5, map[Reporter]float64{west: 900, east: 100}); got < 88 {
		t.Errorf("back from a short absence west has %.1f %%", got)
	}
}

// Two false reports moved the entries from 50/50 to 100/0, and 138 s later there
// were 75/25 still.
func TestNext_falseReports_moveLittleAndAreForgotten(t *testing.T) {
	for _, honest := range []float64{1, 50, 5000} {
		for _, others := range []byte{1, 9} { // besides the liar in west
			var e IngressLoad
			rates := map[Reporter]float64{west: honest * float64(others)}
			for n := range others {
				rates[device(10+n, "east")] = honest
			}
			if got := e.run(20, rates); got != 50 {
				t.Fatalf("west has %v %%", got)
			}
			truth := rates[west]
			rates[west] = 1e9
			lied := e.run(2, rates)
			limit := 66.0
			if truth < maxGrowth*freeRate { // so little that any burst is likely
				limit = 99
			}
			if lied > limit {
				t.Errorf("%v a second, %d others: two false reports move west to %.1f %%", honest, others, lied)
			}
			rates[west] = truth
			if got := e.run(5, rates); got < 48 || got > 52 {
				t.Errorf("%v a second, %d others: ten seconds later west has %.1f %%", honest, others, got)
			}
		}
	}
}

// A newcomer that lies counts no more than twice what the others have.
func TestNext_falseNewcomer_isBoundedByTheOthers(t *testing.T) {
	var e IngressLoad
	rates := map[Reporter]float64{west: 100, east: 100}
	e.run(20, rates)
	rates[device(9, "west")] = 1e9
	if got := e.run(1, rates); got > 60 {
		t.Errorf("its first report moves west to %.1f %%", got)
	}
}

// believeNaively is believe as one would write it without regard to its cost.
func (e IngressLoad) believeNaively(requests map[Reporter]float64, over time.Duration) map[Reporter]float64 {
	out := map[Reporter]float64{}
	idle := true
	for _, s := range e.intervals {
		idle = idle && len(s.requests) == 0
	}
	level := func(r Reporter) float64 { return max(e.peaks[r], requests[r]/over.Seconds()) }
	for r, n := range requests {
		var others []float64
		for o := range e.peaks {
			if o != r {
				others = append(others, level(o))
			}
		}
		for o := range requests {
			if _, seen := e.peaks[o]; o != r && !seen {
				others = append(others, level(o))
			}
		}
		slices.Sort(others)
		limit := math.Inf(1)
		if k := len(others); k > 0 && !idle {
			limit = maxGrowth * max(e.peaks[r], (others[(k-1)/2]+others[k/2])/2, freeRate)
		}
		if n > 0 {
			out[r] = min(n, limit*over.Seconds())
		}
	}
	return out
}

// Whatever is reported: what is believed is what a naive model believes, a weight
// is near to the rates, and once all have told the truth for a window there is
// nothing left of what they told before.
func TestNext_randomReports_sameAsNaiveModel(t *testing.T) {
	all := []Reporter{west, east, device(3, "eu"), device(4, "eu")}
	rapid.Check(t, func(t *rapid.T) {
		var e IngressLoad
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			requests, envoys := map[Reporter]float64{}, map[string]int{"west": 1, "east": 1, "eu": rapid.IntRange(0, 2).Draw(t, "envoys")}
			for _, r := range all {
				if rapid.Bool().Draw(t, "reports") {
					requests[r] = rapid.SampledFrom([]float64{0, 1, 40, 100, 5000, 1e9}).Draw(t, "requests")
				}
			}
			want := e.believeNaively(requests, every)
			next, _ := e.Next(requests, envoys, every)
			if got := next.intervals[len(next.intervals)-1].requests; !maps.Equal(got, want) {
				t.Fatalf("believed %v, want %v of %v after %v", got, want, requests, e)
			}
			e = next
			e.near(t)
		}
		truth := map[Reporter]float64{west: 300, east: 300, all[2]: 300, all[3]: 300}
		for range int(window / every) {
			e, _ = e.Next(truth, nil, every)
		}
		for region, rate := range e.Rates() {
			if want := map[string]float64{"west": 150, "east": 150, "eu": 300}[region]; math.Abs(rate-want) > 1e-6 {
				t.Fatalf("%s has %v a second, want %v", region, rate, want)
			}
		}
		e.near(t)
	})
}

// near checks that published shares are near to the measured ones, and that the
// state is bounded.
func (e IngressLoad) near(t *rapid.T) {
	shares, weights := normalize(e.Rates()), map[string]float64{}
	for region, w := range e.Published {
		if w == 0 {
			t.Fatalf("weight 0 of %s: Envoy refuses it", region)
		}
		weights[region] = float64(w)
	}
	weights = normalize(weights)
	for region, share := range shares {
		if d := share - weights[region]; math.Abs(d) > minChange+0.01 {
			t.Fatalf("%s has %v and is published with %v", region, share, weights[region])
		}
	}
	if len(e.intervals) > int(window/every) || len(e.peaks) > 4 {
		t.Fatalf("%d steps and %d peaks are remembered", len(e.intervals), len(e.peaks))
	}
}

func TestNext_manyReporters_areBounded(t *testing.T) {
	var e IngressLoad
	for i := range 3 {
		requests := map[Reporter]float64{}
		for n := range maxReporters {
			requests[Reporter{netip.AddrFrom4([4]byte{100, byte(i), byte(n >> 8), byte(n)}), "west"}] = float64(n)
		}
		e, _ = e.Next(requests, nil, every)
		if len(e.peaks) > maxReporters {
			t.Fatalf("%d peaks are remembered", len(e.peaks))
		}
	}
	for range 1000 {
		e, _ = e.Next(nil, nil, every)
	}
	if len(e.peaks)+len(e.Rates()) > 0 {
		t.Errorf("half an hour later %d peaks are remembered, %v", len(e.peaks), e.Rates())
	}
}

// A change of two points of a hundred is worth telling everybody, and no less.
func TestNext_smallChange_isNotPublished(t *testing.T) {
	e := IngressLoad{Published: map[string]uint32{"west": 5000, "east": 5000}}
	for share, want := range map[float64]bool{51.9: false, 52.1: true, 48.1: false, 47.9: true} {
		if got := e.differs(map[string]float64{"west": share / 100, "east": 1 - share/100}); got != want {
			t.Errorf("%v %%: %t", share, got)
		}
	}
	if !e.differs(map[string]float64{"west": 0.5, "east": 0.499, "eu": 0.001}) || !e.differs(map[string]float64{"west": 1}) {
		t.Error("a region that comes or goes is told")
	}
}
