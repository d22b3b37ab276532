package provider

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailxds/tailxds/internal/topology"
)

// script is a source that answers as it was last told.
type script struct {
	mu      sync.Mutex
	devices []topology.Device
	err     error
	hang    bool
	asked   []time.Time
	wake    chan struct{}
}

func (s *script) List(ctx context.Context) ([]topology.Device, error) {
	s.mu.Lock()
	s.asked = append(s.asked, time.Now())
	devices, err, hang := clone(s.devices), s.err, s.hang
	s.mu.Unlock()
	if hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return devices, err
}

// Watch wakes whenever the test says so.
func (s *script) Watch(ctx context.Context, wake func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
			wake()
		}
	}
}

func clone(devices []topology.Device) []topology.Device {
	return append([]topology.Device{}, devices...)
}

func (s *script) answer(devices []topology.Device, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.devices, s.err = devices, err
}

// lists are how many lists were asked for since the last call.
func (s *script) lists() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

// fleet is n online devices with IDs from 1.
func fleet(n int) []topology.Device {
	var all []topology.Device
	for i := 1; i <= n; i++ {
		all = append(all, topology.Device{ID: fmt.Sprint(i), Online: true, Tags: []string{"tag:weight-1"}})
	}
	return all
}

// watched runs a watcher in a bubble of faked time.
func watched(t *testing.T, src *script, opts Options, test func(w *watcher)) {
	synctest.Test(t, func(t *testing.T) {
		src.wake = make(chan struct{}, 100) // made in the bubble
		run(t, src, opts, test)
	})
}

// bubble is watched for any other source.
func bubble(t *testing.T, src Source, opts Options, test func(w *watcher)) {
	synctest.Test(t, func(t *testing.T) { run(t, src, opts, test) })
}

func run(t *testing.T, src Source, opts Options, test func(w *watcher)) {
	if opts.Log == nil {
		opts.Log = quiet()
	}
	w := &watcher{Watcher: NewWatcher(src, opts)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	test(w)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("run ended with %v", err)
	}
}

// after lets time pass, and whatever happens in it.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// watcher is a [Watcher] whose lists a test takes.
type watcher struct {
	*Watcher
	taken []topology.Device
}

// next is the list that came since the last call, if it is another one.
func (w *watcher) next() []topology.Device {
	select {
	case u := <-w.Updates():
		if u.UnhealthyReason == "" && !Same(u.Devices, w.taken) {
			w.taken = u.Devices
			return u.Devices
		}
	default:
	}
	return nil
}

// health is what the last update says of the source.
func (w *watcher) health() Update {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.latest
}

func expectIDs(t *testing.T, devices []topology.Device, want string) {
	t.Helper()
	var got []string
	for _, d := range devices {
		got = append(got, d.ID)
	}
	if g := strings.Join(got, " "); g != want {
		t.Errorf("got devices %q, want %q", g, want)
	}
}

func TestWatcher_interval_listsAgain(t *testing.T) {
	src := &script{devices: []topology.Device{{ID: "10", Online: true}, {ID: "9", Online: true}}}
	watched(t, src, Options{Interval: 10 * time.Second}, func(w *watcher) {
		after(0)
		expectIDs(t, w.next(), "9 10")
		after(time.Minute)
		if n := len(src.lists()); n < 6 || n > 8 {
			t.Errorf("%d lists in a minute of 10 s polls", n)
		}
		src.answer([]topology.Device{{ID: "9", Online: true}, {ID: "10", Online: true}}, nil)
		after(20 * time.Second)
		if got := w.next(); got != nil {
			t.Errorf("another order is no news: %v", got)
		}
		src.answer([]topology.Device{{ID: "9", Online: true, Tags: []string{"tag:weight-2"}}, {ID: "10", Online: true}}, nil)
		after(10 * time.Second)
		if got := w.next(); len(got) != 2 || len(got[0].Tags) != 1 {
			t.Errorf("news did not come: %v", got)
		}
		if s := w.Status(); s.Devices != 2 || s.Stale || s.Failures != 0 || time.Since(s.LastGood) > 10*time.Second {
			t.Errorf("status %+v", s)
		}
	})
}

func TestWatcher_updateNotTaken_isReplaced(t *testing.T) {
	src := &script{devices: fleet(1)}
	watched(t, src, Options{}, func(w *watcher) {
		for n := 2; n <= 5; n++ {
			after(20 * time.Second) // nobody takes what comes
			src.answer(fleet(n), nil)
		}
		after(20 * time.Second)
		expectIDs(t, w.next(), "1 2 3 4 5")
		if got := w.next(); got != nil {
			t.Errorf("an old list is left: %v", got)
		}
	})
}

func TestWatcher_manyWakes_areCoalesced(t *testing.T) {
	src := &script{devices: fleet(2)}
	watched(t, src, Options{Interval: time.Hour, Spacing: 200 * time.Millisecond}, func(*watcher) {
		after(time.Minute)
		src.lists()
		woken := time.Now()
		src.wake <- struct{}{}
		after(0)
		if got := src.lists(); len(got) != 1 || !got[0].Equal(woken) {
			t.Errorf("a wake after quiet time is not answered at once: %v", got)
		}
		for range 200 { // a storm: 200 wakes in two seconds
			src.wake <- struct{}{}
			after(10 * time.Millisecond)
		}
		after(time.Second)
		storm := src.lists()
		if len(storm) < 10 || len(storm) > 10+burst {
			t.Errorf("200 wakes in 2 s made %d lists", len(storm))
		}
		if last := storm[len(storm)-1]; last.Before(woken.Add(1990 * time.Millisecond)) {
			t.Errorf("the last wake was lost: last list %v after the first wake", last.Sub(woken))
		}
	})
}

// A change that comes just after a list, or after the change before, is not
// kept waiting for what the source can bear in the long run.
func TestWatcher_fewWakes_listAtOnce(t *testing.T) {
	src := &script{devices: fleet(2)}
	watched(t, src, Options{Interval: time.Hour, Spacing: 2 * time.Second}, func(*watcher) {
		after(time.Minute)
		src.lists()
		for i := range burst {
			woken := time.Now()
			src.wake <- struct{}{}
			after(10 * time.Millisecond)
			if got := src.lists(); len(got) != 1 || !got[0].Equal(woken) {
				t.Errorf("wake %d is not answered at once: %v", i+1, got)
			}
		}
		src.wake <- struct{}{}
		after(time.Second)
		if got := src.lists(); len(got) != 0 {
			t.Errorf("%d lists in a row", burst+len(got))
		}
		after(time.Second)
		if got := src.lists(); len(got) != 1 {
			t.Errorf("%d lists for the wake that had to wait", len(got))
		}
	})
}

// A wake that comes while a list waits for its turn is answered by that list.
func TestWatcher_wakesBeforeAList_needNoOther(t *testing.T) {
	src := &script{devices: fleet(2)}
	watched(t, src, Options{Interval: time.Hour, Spacing: time.Second}, func(*watcher) {
		after(time.Minute)
		for range burst + 3 { // the last ones come while one waits
			src.wake <- struct{}{}
			after(time.Millisecond)
		}
		src.lists()
		after(time.Minute)
		if got := src.lists(); len(got) != 1 {
			t.Errorf("%d lists for what was told before the first of them", len(got))
		}
	})
}

func TestWatcher_failures_keepTheLastListAndBackOff(t *testing.T) {
	var log bytes.Buffer
	src := &script{devices: fleet(3)}
	opts := Options{Interval: 15 * time.Second, Log: slog.New(slog.NewTextHandler(&log, nil))}
	watched(t, src, opts, func(w *watcher) {
		after(0)
		expectIDs(t, w.next(), "1 2 3")
		good := w.Status().LastGood
		src.answer(nil, errors.New("database is locked"))
		src.lists()
		after(10 * time.Minute)
		asked := src.lists()
		if got := w.next(); got != nil {
			t.Errorf("an error published %v", got)
		}
		s := w.Status()
		if !s.Stale || s.Error != "database is locked" || s.Failures != len(asked) || s.Devices != 3 || !s.LastGood.Equal(good) || s.Denied {
			t.Errorf("status %+v after %d failures", s, len(asked))
		}
		// Soon at first, then at most every 7.5 s, at least every 22.5 s, and
		// never twice after the same pause.
		pauses := map[time.Duration]bool{}
		for i := 1; i < len(asked); i++ {
			pause := asked[i].Sub(asked[i-1])
			pauses[pause] = true
			if i == 1 && pause > 750*time.Millisecond || pause > 22500*time.Millisecond || i > 8 && pause < 7500*time.Millisecond {
				t.Errorf("pause %d is %v", i, pause)
			}
		}
		if len(pauses) < len(asked)-2 {
			t.Errorf("no jitter: %d pauses of %d differ", len(pauses), len(asked)-1)
		}
		src.answer(fleet(4), nil)
		after(30 * time.Second)
		expectIDs(t, w.next(), "1 2 3 4")
		if s := w.Status(); s.Stale || s.Failures != 0 || s.Error != "" {
			t.Errorf("not recovered: %+v", s)
		}
	})
	if n := strings.Count(log.String(), "database is locked"); n != 1 {
		t.Errorf("one error that lasts is told %d times:\n%s", n, &log)
	}
	if !strings.Contains(log.String(), "listing devices again") {
		t.Errorf("the recovery is not logged:\n%s", &log)
	}
}

func TestWatcher_retryAfter_isHonoredWhenWoken(t *testing.T) {
	src := &script{err: fmt.Errorf("list: %w", &apiError{status: 429, text: "429", wait: 90 * time.Second})}
	watched(t, src, Options{}, func(*watcher) {
		for range 100 {
			src.wake <- struct{}{}
			after(800 * time.Millisecond)
		}
		if n := len(src.lists()); n != 1 {
			t.Errorf("%d lists within 80 s of an answer that asks for 90 s", n)
		}
		after(15 * time.Second)
		if n := len(src.lists()); n != 1 {
			t.Errorf("%d lists after the wait", n)
		}
	})
}

func TestWatcher_credentialRefused_logsAnErrorAndSlowsDown(t *testing.T) {
	var log bytes.Buffer
	src := &script{err: fmt.Errorf("list: %w", &apiError{status: 403, text: "403: lacks the scope"})}
	watched(t, src, Options{Log: slog.New(slog.NewTextHandler(&log, nil))}, func(w *watcher) {
		after(10 * time.Minute)
		quiet := len(src.lists())
		if quiet < 10 || quiet > 13 {
			t.Errorf("%d tries in ten minutes", quiet)
		}
		// What wakes it may be the mended credential, so it tries sooner.
		for range 600 {
			src.wake <- struct{}{}
			after(time.Second)
		}
		if n := len(src.lists()) - quiet; n < 50 || n > 61 {
			t.Errorf("%d tries in ten minutes of wakes", n)
		}
		if s := w.Status(); !s.Denied {
			t.Errorf("status %+v", s)
		}
	})
	if out := log.String(); strings.Count(out, "level=ERROR") != 1 || !strings.Contains(out, "lacks the scope") {
		t.Errorf("log:\n%s", out)
	}
}

func TestWatcher_wakeAfterAFailure_listsSoon(t *testing.T) {
	src := &script{err: errors.New("no netmap yet")}
	watched(t, src, Options{Interval: time.Hour}, func(w *watcher) {
		after(10 * time.Minute) // long pauses by now
		src.lists()
		src.answer(fleet(1), nil)
		src.wake <- struct{}{}
		after(time.Second)
		expectIDs(t, w.next(), "1")
	})
}

func TestWatcher_listHangs_endsAtTheTimeout(t *testing.T) {
	src := &script{hang: true}
	watched(t, src, Options{Timeout: 40 * time.Second}, func(w *watcher) {
		after(41 * time.Second)
		if s := w.Status(); s.Failures != 1 || !strings.Contains(s.Error, "deadline") {
			t.Errorf("status %+v", s)
		}
	})
}

func TestWatcher_failureOrLinkDown_endsHealth(t *testing.T) {
	var down atomic.Bool
	src := &script{devices: fleet(2)}
	opts := Options{Interval: 10 * time.Second, LinkUp: func() bool { return !down.Load() }}
	watched(t, src, opts, func(w *watcher) {
		started := time.Now()
		after(time.Minute)
		if h := w.health(); !h.HealthySince.Equal(started) || h.UnhealthyReason != "" || time.Since(h.At) > 10*time.Second {
			t.Errorf("well for a minute: %+v", h)
		}
		at := w.health().At
		src.answer(nil, errors.New("it broke"))
		src.wake <- struct{}{}
		after(time.Second)
		if h := w.health(); !h.HealthySince.IsZero() || h.UnhealthyReason != "the devices can't be listed" || !h.At.Equal(at) || len(h.Devices) != 2 {
			t.Errorf("while it fails: %+v", h)
		}
		src.answer(fleet(3), nil)
		after(20 * time.Second)
		mended := w.health().HealthySince
		if h := w.health(); !mended.After(at) || h.UnhealthyReason != "" || len(h.Devices) != 3 {
			t.Errorf("mended: %+v", h)
		}
		down.Store(true)
		after(20 * time.Second)
		if h := w.health(); !h.HealthySince.IsZero() || h.UnhealthyReason != linkDownReason || time.Since(h.At) > 10*time.Second {
			t.Errorf("without a link: %+v", h)
		}
		if s := w.Status(); !s.LinkDown || s.Stale {
			t.Errorf("without a link, the status is %+v", s)
		}
		down.Store(false)
		after(20 * time.Second)
		if h := w.health(); !h.HealthySince.After(mended) || h.UnhealthyReason != "" {
			t.Errorf("with a link again: %+v", h)
		}
		if s := w.Status(); s.LinkDown {
			t.Errorf("with a link again, the status is %+v", s)
		}
	})
}

func TestWatcher_savedList_isStaleUntilTheSourceAnswers(t *testing.T) {
	src := &script{err: errors.New("down")}
	synctest.Test(t, func(t *testing.T) {
		kept := time.Now().Add(-time.Hour)
		src.wake = make(chan struct{}, 1)
		run(t, src, Options{LastGood: kept}, func(w *watcher) {
			after(time.Minute)
			if s := w.Status(); !s.Stale || !s.LastGood.Equal(kept) {
				t.Errorf("status %+v", s)
			}
			src.answer(fleet(1), nil)
			after(time.Minute)
			if s := w.Status(); s.Stale || s.LastGood.Equal(kept) {
				t.Errorf("status %+v", s)
			}
		})
	})
}
