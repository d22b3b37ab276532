package provider

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tailxds/tailxds/internal/topology"
)

func holdOptions() Options {
	return Options{Interval: 5 * time.Second, HoldFor: time.Minute}
}

func TestHoldsAListThatLacksMost(t *testing.T) {
	for name, lost := range map[string][]topology.Device{
		"empty":         {},
		"most missing":  fleet(1),
		"most offline":  off(fleet(4), 1, 2, 3),
		"mixed":         off(fleet(2), 1),
		"IDs all anew":  {{ID: "a", Online: true}, {ID: "b", Online: true}, {ID: "c", Online: true}, {ID: "d", Online: true}},
		"most untagged": {{ID: "1", Online: true, Tags: []string{"tag:weight-1"}}, {ID: "2", Online: true}, {ID: "3", Online: true}, {ID: "4", Online: true}},
	} {
		t.Run(name, func(t *testing.T) {
			src := &script{devices: fleet(4)}
			opts := holdOptions()
			if name == "most untagged" {
				opts.Serving = func(devices []topology.Device) map[string]bool {
					ids := map[string]bool{}
					for _, d := range devices {
						if len(d.Tags) > 0 && d.Online {
							ids[d.ID] = true
						}
					}
					return ids
				}
			}
			watched(t, src, opts, func(w *Watcher) {
				after(0)
				next(w)
				src.answer(lost, nil)
				after(50 * time.Second)
				if got := next(w); got != nil {
					t.Fatalf("not held: %v", got)
				}
				h := w.Status().Held
				if h == nil || h.Of != 4 || h.Lacks < 3 || h.Lists < 8 || !strings.Contains(h.Reason, "tailxds accept") {
					t.Fatalf("status says %+v", h)
				}
				if w.Status().Stale {
					t.Error("the source is well, but stale")
				}
				after(15 * time.Second)
				if got := next(w); got == nil {
					t.Error("it stood for a minute, but is not applied")
				}
				if h := w.Status().Held; h != nil {
					t.Errorf("still held: %+v", h)
				}
				after(time.Minute)
				if got := next(w); got != nil || w.Status().Held != nil {
					t.Errorf("not settled: %v %+v", got, w.Status())
				}
			})
		})
	}
}

func TestHalfIsNotHeld(t *testing.T) {
	src := &script{devices: fleet(4)}
	watched(t, src, holdOptions(), func(w *Watcher) {
		after(0)
		next(w)
		src.answer(fleet(2), nil)
		after(5 * time.Second)
		expectIDs(t, next(w), "1 2")
	})
}

func TestABlipMovesNothing(t *testing.T) {
	src := &script{devices: fleet(4)}
	watched(t, src, holdOptions(), func(w *Watcher) {
		after(0)
		next(w)
		src.answer(nil, nil)
		after(30 * time.Second)
		src.answer(fleet(4), nil)
		after(10 * time.Minute)
		if got := next(w); got != nil || w.Status().Held != nil {
			t.Errorf("the blip left %v %+v", got, w.Status().Held)
		}
		// A second blip has to stand its own minute.
		src.answer(nil, nil)
		after(50 * time.Second)
		if got := next(w); got != nil {
			t.Errorf("the second blip got through after %v", got)
		}
	})
}

// A netmap tells of a lost region one peer at a time.
func TestLossInStepsIsHeldToo(t *testing.T) {
	src := &script{devices: fleet(6)}
	watched(t, src, holdOptions(), func(w *Watcher) {
		after(0)
		next(w)
		for n := 1; n <= 6; n++ {
			var gone []int
			for i := 1; i <= n; i++ {
				gone = append(gone, i)
			}
			src.answer(off(fleet(6), gone...), nil)
			src.wake <- struct{}{}
			after(time.Second)
		}
		var online int
		for _, d := range next(w) {
			if d.Online {
				online++
			}
		}
		if online != 3 || w.Status().Held == nil {
			t.Errorf("%d of 6 stay, held %+v", online, w.Status().Held)
		}
	})
}

// What leaves slowly was meant to leave, though it adds up to most.
func TestSlowLossIsNotHeld(t *testing.T) {
	src := &script{devices: fleet(4)}
	watched(t, src, holdOptions(), func(w *Watcher) {
		for i, want := range []string{"1 2 3", "1 2", "1"} {
			after(2 * time.Minute)
			src.answer(fleet(3-i), nil)
			after(10 * time.Second)
			expectIDs(t, next(w), want)
		}
	})
}

func TestAcceptLetsAHeldListThrough(t *testing.T) {
	src := &script{devices: fleet(4)}
	watched(t, src, holdOptions(), func(w *Watcher) {
		after(0)
		next(w)
		if err := w.Accept(); err == nil || !strings.Contains(err.Error(), "no list is held") {
			t.Errorf("accepted nothing: %v", err)
		}
		src.answer(fleet(1), nil)
		after(6 * time.Second)
		if err := w.Accept(); err != nil {
			t.Fatal(err)
		}
		expectIDs(t, next(w), "1")
		after(time.Minute)
		if got := next(w); got != nil || w.Status().Held != nil {
			t.Errorf("not settled: %v %+v", got, w.Status())
		}
	})
}

// At least two lists: one answer that stays unconfirmed proves nothing.
func TestAHeldListNeedsASecondOne(t *testing.T) {
	src := &script{devices: fleet(4)}
	watched(t, src, holdOptions(), func(w *Watcher) {
		after(0)
		next(w)
		src.answer(nil, nil)
		after(5 * time.Second)
		src.answer(nil, &apiError{status: 500, text: "500"})
		after(10 * time.Minute)
		if got := next(w); got != nil {
			t.Errorf("applied by time alone: %v", got)
		}
	})
}

func TestHoldIsConfirmedOnTime(t *testing.T) {
	src := &script{devices: fleet(4)}
	opts := holdOptions()
	opts.Interval = time.Hour // the poll alone would confirm it an hour late
	watched(t, src, opts, func(w *Watcher) {
		after(time.Minute)
		next(w)
		src.answer(fleet(1), nil)
		src.wake <- struct{}{}
		after(59 * time.Second)
		if got := next(w); got != nil {
			t.Errorf("applied early: %v", got)
		}
		after(2 * time.Second)
		expectIDs(t, next(w), "1")
	})
}

func TestLinkDownRemovesNobody(t *testing.T) {
	var down atomic.Bool
	src := &script{devices: fleet(4)}
	opts := holdOptions()
	opts.LinkUp = func() bool { return !down.Load() }
	watched(t, src, opts, func(w *Watcher) {
		after(0)
		next(w)
		down.Store(true)
		src.answer(off(fleet(4), 4), nil)
		after(time.Hour)
		if got := next(w); got != nil {
			t.Errorf("removed while the link is down: %v", got)
		}
		if h := w.Status().Held; h == nil || !strings.Contains(h.Reason, "own link") {
			t.Errorf("status says %+v", h)
		}
		src.answer(fleet(5), nil) // news that remove nobody are welcome
		after(10 * time.Second)
		expectIDs(t, next(w), "1 2 3 4 5")
		src.answer(fleet(4), nil)
		after(time.Minute)
		down.Store(false)
		after(6 * time.Second)
		expectIDs(t, next(w), "1 2 3 4")
	})
}

// What came while the link was down proves nothing: a coordination server that
// was restarted shows everybody offline at first.
func TestLinkBackBeginsTheHoldAnew(t *testing.T) {
	var down atomic.Bool
	src := &script{devices: fleet(4)}
	opts := holdOptions()
	opts.LinkUp = func() bool { return !down.Load() }
	watched(t, src, opts, func(w *Watcher) {
		after(0)
		next(w)
		src.answer(off(fleet(4), 1, 2, 3, 4), nil)
		after(30 * time.Second) // held while the link is up
		down.Store(true)
		after(time.Hour)
		down.Store(false)
		after(50 * time.Second)
		if got := next(w); got != nil {
			t.Errorf("applied right after the link came back: %v", got)
		}
		src.answer(fleet(4), nil)
		after(time.Hour)
		if got := next(w); got != nil || w.Status().Held != nil {
			t.Errorf("got %v, held %+v", got, w.Status().Held)
		}
	})
}

// Once a list stood its time, its offline devices are long offline.
func TestOfflineSinceCountsWhileHeld(t *testing.T) {
	src := &script{devices: fleet(2)}
	watched(t, src, holdOptions(), func(w *Watcher) {
		after(0)
		next(w)
		src.answer(off(fleet(2), 1, 2), nil)
		after(70 * time.Second)
		got := next(w)
		if len(got) != 2 || got[0].OfflineSince == nil || time.Since(*got[0].OfflineSince) < time.Minute {
			t.Errorf("got %+v", got)
		}
	})
}
