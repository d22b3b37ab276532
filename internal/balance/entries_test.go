package balance

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func published(e Entries) string {
	var all []string
	for _, region := range slices.Sorted(maps.Keys(e.Published)) {
		all = append(all, fmt.Sprintf("%s=%d", region, e.Published[region]))
	}
	return strings.Join(all, " ")
}

func TestEntriesFollowWhatIsMeasured(t *testing.T) {
	var e Entries
	envoys := map[string]int{"west": 2, "east": 2}
	step := func(want string, news bool, requests map[string]float64) {
		t.Helper()
		next, changed := e.Next(requests, envoys, 5*time.Second)
		e = next
		if got := published(e); got != want || changed != news {
			t.Errorf("got %s, news %t; want %s, %t", got, changed, want, news)
		}
	}
	step("east=5000 west=5000", true, nil) // nothing is measured: by the Envoys
	step("east=5000 west=5000", false, nil)
	step("east=2500 west=7500", true, map[string]float64{"west": 750, "east": 250})
	step("east=2500 west=7500", false, map[string]float64{"west": 700, "east": 250}) // not worthwhile
	step("east=4521 west=5479", true, map[string]float64{"west": 250, "east": 750})  // smoothed
	for range 100 {
		e, _ = e.Next(map[string]float64{"west": 250, "east": 750}, envoys, 5*time.Second)
	}
	if w := e.Published["west"]; w < 2_300 || w > 2_700 {
		t.Errorf("west settles at %d, want some 2500", w)
	}
	// A region whose Envoys are idle stays known, one without any is forgotten.
	for range 200 {
		e, _ = e.Next(map[string]float64{"east": 1000}, envoys, 5*time.Second)
	}
	if w := e.Published["west"]; w == 0 || w > 250 {
		t.Errorf("west has %d of it, want little and not nothing", w)
	}
	envoys["west"], envoys["eu"] = 0, 0
	for range 200 {
		e, _ = e.Next(map[string]float64{"east": 1000}, envoys, 5*time.Second)
	}
	if got := published(e); got != "east=10000" {
		t.Errorf("got %s", got)
	}
}

// A change of two points of a hundred is worth telling everybody, and no less.
func TestWhatIsWorthwhile(t *testing.T) {
	e := Entries{Rates: map[string]float64{"west": 50, "east": 50}, Published: map[string]uint32{"west": 5000, "east": 5000}}
	for share, want := range map[float64]bool{51.9: false, 52.1: true, 48.1: false, 47.9: true} {
		if got := e.moved(map[string]float64{"west": share / 100, "east": 1 - share/100}); got != want {
			t.Errorf("%v %%: %t", share, got)
		}
	}
	if !e.moved(map[string]float64{"west": 0.5, "east": 0.499, "eu": 0.001}) || !e.moved(map[string]float64{"west": 1}) {
		t.Error("a region that comes or goes is told")
	}
}

// A rate that was measured follows the newest by its age, and ends.
func TestRatesAreSmoothed(t *testing.T) {
	e, _ := Entries{}.Next(map[string]float64{"west": 100}, nil, time.Second)
	if e.Rates["west"] != 100 {
		t.Errorf("the first counts whole: %v", e.Rates)
	}
	e, _ = e.Next(nil, nil, settle)
	if r := e.Rates["west"]; r < 36 || r > 37.5 {
		t.Errorf("after the time in which it settles: %v, want a third", r)
	}
	e, _ = e.Next(map[string]float64{"west": 10 * 36.8}, nil, settle)
	if r := e.Rates["west"]; r < 36 || r > 37.5 {
		t.Errorf("ten seconds at the same rate: %v", r)
	}
	for range 20 {
		e, _ = e.Next(nil, nil, settle)
	}
	if len(e.Rates) != 0 {
		t.Errorf("still there: %v", e.Rates)
	}
}

// Whatever is measured, a published share is near to the measured one, and the
// same again is no news.
func TestEntriesProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var e Entries
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			requests, envoys := map[string]float64{}, map[string]int{}
			for _, region := range []string{"west", "east", "eu"} {
				requests[region] = rapid.Float64Range(0, 1e6).Draw(t, region)
				envoys[region] = rapid.IntRange(0, 3).Draw(t, "envoys")
			}
			e, _ = e.Next(requests, envoys, 5*time.Second)
			shares, weights := normal(e.Rates), map[string]float64{}
			for region, w := range e.Published {
				if w == 0 {
					t.Fatalf("weight 0 of %s: Envoy refuses it", region)
				}
				weights[region] = float64(w)
			}
			weights = normal(weights)
			for region, share := range shares {
				if d := share - weights[region]; d > worthwhile+0.01 || d < -worthwhile-0.01 {
					t.Fatalf("%s has %v and is published with %v", region, share, weights[region])
				}
			}
		}
	})
}
