package telemetry

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tailxds/tailxds/internal/traffic"
)

// The wall clock is set back by an hour while requests flow: what comes after is
// in the history at once, and dated by the clock as it is now.
func TestHistory_wallClockSetBack_goesOn(t *testing.T) {
	r := newRig(t)
	wall := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	r.now = func() time.Time { return wall }
	r.SetPublished(published("s", "west"))
	ask := func(minutes int) {
		for range minutes * 12 {
			wall = wall.Add(5 * time.Second)
			r.send((&export{node: "n"}).counter("cluster.endpoint.rq_total", "s", at(1).String(), delta, 50))
		}
	}
	requests := func() (sum float64, h traffic.History) {
		h = r.History("s", wall)
		for _, e := range h.Endpoints {
			for _, n := range e.Requests {
				sum += n * h.Step.Seconds()
			}
		}
		return sum, h
	}
	ask(5)
	before, _ := requests()
	wall = wall.Add(-time.Hour)
	ask(5)
	after, h := requests()
	if before < 2_800 || before > 3_000 || after < before+2_900 || after > before+3_100 {
		t.Errorf("before there were %v requests, and five minutes after it %v", before, after)
	}
	if end := h.Start.Add(time.Duration(len(h.Crossing)) * h.Step); wall.Sub(end) < 0 || wall.Sub(end) > time.Minute {
		t.Errorf("the history ends at %v, and it is %v", end, wall)
	}
	v := r.View(wall)
	if len(v.Envoys) != 1 || v.Envoys[0].Stale || !v.Envoys[0].Seen.Equal(wall) || v.Envoys[0].Services[0].Endpoints[0].Requests != 10 {
		t.Errorf("of now: %+v", v.Envoys)
	}
	if got := r.byRegion()["west"]; got != 2*5*12*50 {
		t.Errorf("%v requests were counted", got)
	}
}

// The steady time never goes back, follows the wall clock where that goes on, and
// small steps back do not add up.
func TestSteady_anyWallClock_neverGoesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c steadyClock
		wall := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
		last := c.steady(wall)
		for range rapid.IntRange(1, 50).Draw(t, "steps") {
			step := rapid.SampledFrom([]time.Duration{0, time.Millisecond, time.Second, time.Minute, time.Hour, -time.Millisecond, -time.Second, -minSetBack, -time.Hour}).Draw(t, "step")
			wall = wall.Add(step)
			now := c.steady(wall)
			if now.Before(last) {
				t.Fatalf("it went back by %v", last.Sub(now))
			}
			if passed := now.Sub(last); passed > max(step, 0)+minSetBack {
				t.Fatalf("%v on the wall are %v", step, passed)
			}
			last = now
			if off := c.wall(now).Sub(wall); off < 0 || off >= minSetBack {
				t.Fatalf("on the wall it is %v off", off)
			}
		}
	})
}
