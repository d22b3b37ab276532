package provider

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/time/rate"

	"github.com/tailxds/tailxds/internal/topology"
)

// Options configure a [Watcher]. The zero value works.
type Options struct {
	// Provider is the source's name, as [Open] returned it.
	Provider string
	// Interval is the maximum time between lists; 0 means 15 s.
	Interval time.Duration
	// Spacing is the minimum time between the starts of lists in the long run,
	// however often the source wakes; 0 means what the Provider can bear: 100 ms,
	// half a second for headscale and two for Tailscale. After a pause a few lists
	// may follow each other at once: a change must not wait because of a list that
	// found nothing.
	Spacing time.Duration
	// Timeout bounds one list; 0 means one minute.
	Timeout time.Duration
	// LastGood is when the saved list was taken; zero if there is none.
	LastGood time.Time
	// LinkUp reports whether the control plane is in touch with the coordination
	// server; nil means to ask the source, if it knows.
	LinkUp func() bool
	// Log is where failures and recoveries are logged; nil means the default.
	Log *slog.Logger
}

func (o Options) withDefaults(src Source) Options {
	o.Interval = cmp.Or(o.Interval, 15*time.Second)
	o.Spacing = cmp.Or(o.Spacing, spacing(o.Provider))
	o.Timeout = cmp.Or(o.Timeout, time.Minute)
	o.Log = cmp.Or(o.Log, slog.Default())
	if link, ok := src.(linked); ok && o.LinkUp == nil {
		o.LinkUp = link.LinkUp
	}
	if o.LinkUp == nil {
		o.LinkUp = func() bool { return true }
	}
	return o
}

// spacing returns what a source can bear.
func spacing(provider string) time.Duration {
	e, err := find(Config{Provider: provider})
	if err != nil {
		return 100 * time.Millisecond
	}
	return e.spacing
}

// burst is how many lists may follow each other without a Spacing.
const burst = 3

// Status is the state of a [Watcher], for /status and metrics.
type Status struct {
	Provider string `json:"provider"`
	// LastGood is when the source last gave a list; zero if it never did.
	LastGood time.Time `json:"lastGood,omitzero"`
	// Stale says that the list in use is not the source's current answer: the
	// source fails, or the list was read from disk.
	Stale bool `json:"stale"`
	// Error is the source's last failure, and Failures counts those in a row.
	Error    string `json:"error,omitempty"`
	Failures int    `json:"failures"`
	// Denied says that the source refuses the credential: an operator has to act.
	Denied bool `json:"denied,omitempty"`
	// LinkDown says that the control plane's own node is not in touch with the
	// coordination server. Lists may come all the same, by another way.
	LinkDown bool `json:"linkDown,omitempty"`
	// Devices is how many devices the last list had.
	Devices int `json:"devices"`
}

// Update is the state of a source: its last list, and whether the source is healthy
// since.
type Update struct {
	// Devices are the last list, sorted by ID. They must not be changed.
	Devices []topology.Device
	// At is when that list was taken; zero while there was none.
	At time.Time
	// HealthySince is since when the source gives lists and the control plane's
	// own link to the coordination server is up, both without a break. It is
	// zero while either is not so, and UnhealthyReason says which.
	HealthySince    time.Time
	UnhealthyReason string
}

// Watcher lists the devices of a source again and again. Package guard decides
// what a list may change.
type Watcher struct {
	src     Source
	opts    Options
	updates chan Update
	woken   chan struct{}

	mu      sync.Mutex
	status  Status
	latest  Update
	retry   *backoff.ExponentialBackOff
	limiter *rate.Limiter
}

// NewWatcher returns a watcher of src. It does nothing until Run.
func NewWatcher(src Source, opts Options) *Watcher {
	opts = opts.withDefaults(src)
	return &Watcher{
		src: src, opts: opts,
		updates: make(chan Update, 1),
		woken:   make(chan struct{}, 1),
		status:  Status{Provider: opts.Provider, LastGood: opts.LastGood, Stale: !opts.LastGood.IsZero()},
		retry: &backoff.ExponentialBackOff{
			InitialInterval: 500 * time.Millisecond, RandomizationFactor: 0.5, Multiplier: 2,
			MaxInterval: max(opts.Interval, time.Second),
		},
		limiter: rate.NewLimiter(rate.Every(opts.Spacing), burst),
	}
}

// Updates returns a channel with each list, also one like the last, and each change
// of the source's health. The next update replaces one that was not received yet.
func (w *Watcher) Updates() <-chan Update { return w.updates }

// Status returns the current state.
func (w *Watcher) Status() Status {
	linkUp := w.opts.LinkUp()
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.status
	s.LinkDown = !linkUp
	return s
}

// Run lists and retries until ctx is done.
func (w *Watcher) Run(ctx context.Context) error {
	var watchers sync.WaitGroup
	defer watchers.Wait()
	watchers.Go(func() { watchAll(ctx, w.Wake, w.src) })

	for {
		sleep(ctx, w.limiter.Reserve().Delay())
		select {
		case <-w.woken: // this list answers it
		default:
		}
		err := w.list(ctx)
		if ctx.Err() != nil {
			return fmt.Errorf("watch devices: %w", ctx.Err())
		}
		w.wait(ctx, err)
	}
}

// Wake requests a list as soon as the spacing allows one.
func (w *Watcher) Wake() {
	select {
	case w.woken <- struct{}{}:
	default: // one is waiting already
	}
}

// linkDownReason is why a device that a list lacks does not count as removed.
const linkDownReason = "the control plane's own link to the coordination server is down"

// list lists the devices once.
func (w *Watcher) list(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, w.opts.Timeout)
	defer cancel()
	devices, err := w.src.List(ctx)
	linkUp := w.opts.LinkUp()

	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if err != nil {
		w.recordFailure(err, now)
		if w.latest.UnhealthyReason == "" {
			w.publish(Update{Devices: w.latest.Devices, At: w.latest.At, UnhealthyReason: "the devices can't be listed"})
		}
		return err // the source says what failed
	}
	w.recordSuccess(now)
	w.logLink(linkUp)
	w.status.Devices = len(devices)
	slices.SortStableFunc(devices, func(a, b topology.Device) int { return topology.CompareIDs(a.ID, b.ID) })
	next := Update{Devices: devices, At: now, HealthySince: w.latest.HealthySince}
	switch {
	case !linkUp:
		next.HealthySince, next.UnhealthyReason = time.Time{}, linkDownReason
	case next.HealthySince.IsZero():
		next.HealthySince = now
	}
	w.publish(next)
	return nil
}

// logLink logs that the link went down or came back, where lists come without it;
// where they don't, the failure of the list is logged.
func (w *Watcher) logLink(up bool) {
	switch wasDown := w.latest.UnhealthyReason == linkDownReason; {
	case !up && !wasDown:
		w.opts.Log.Warn(linkDownReason + "; held removals stay held until it is back")
	case up && wasDown:
		w.opts.Log.Info("the control plane's own link to the coordination server is up again")
	}
}

// publish sends an update, in place of one that was not received.
func (w *Watcher) publish(u Update) {
	w.latest = u
	select {
	case <-w.updates:
	default:
	}
	w.updates <- u
}

func (w *Watcher) recordFailure(err error, now time.Time) {
	changed := w.status.Error != err.Error()
	w.status.Error, w.status.Stale = err.Error(), true
	w.status.Failures++
	w.status.Denied = errors.Is(err, errDenied)
	serving := "nothing yet"
	if !w.status.LastGood.IsZero() {
		serving = "the last good list, " + now.Sub(w.status.LastGood).Round(time.Second).String() + " old"
	}
	switch {
	case !changed:
		w.opts.Log.Debug("cannot list devices", "error", err, "failures", w.status.Failures)
	case w.status.Denied:
		w.opts.Log.Error("cannot list devices: credential refused; renew the token or its scopes", "error", err, "serving", serving)
	default:
		w.opts.Log.Warn("cannot list devices", "error", err, "serving", serving)
	}
}

func (w *Watcher) recordSuccess(now time.Time) {
	if w.status.Failures > 0 {
		w.opts.Log.Info("listing devices again", "failures", w.status.Failures)
	}
	w.status.Error, w.status.Failures, w.status.Denied = "", 0, false
	w.status.LastGood, w.status.Stale = now, false
	w.retry.Reset()
}

// While the credential is refused, the source is asked once every deniedWait. A wake
// may mean that it was fixed, but counts at most once every deniedSpacing.
const (
	deniedWait    = time.Minute
	deniedSpacing = 10 * time.Second
)

// wait sleeps until the next list is due or the source wakes. A wake after a failure
// counts too, since it may mean that the cause was fixed, but not during a Retry-After.
func (w *Watcher) wait(ctx context.Context, err error) {
	pause, quiet := w.pause(err)
	sleep(ctx, quiet)
	timer := time.NewTimer(max(pause-quiet, 0))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-w.woken:
	}
}

// pause returns how long to wait after a list, and for how much of that wakes are
// ignored.
func (w *Watcher) pause(err error) (pause, quiet time.Duration) {
	var asked interface{ RetryAfter() time.Duration }
	switch {
	case err == nil:
		return jitter(w.opts.Interval), 0
	case errors.As(err, &asked) && asked.RetryAfter() > 0:
		pause = max(asked.RetryAfter(), w.retry.NextBackOff())
		return pause, pause
	case errors.Is(err, errDenied):
		return jitter(deniedWait), deniedSpacing
	default:
		pause = w.retry.NextBackOff()
		return pause, min(pause, w.opts.Spacing*time.Duration(w.Status().Failures), time.Second)
	}
}

// jitter takes up to a tenth off, so that control planes that started at the same
// time don't send their requests at the same time.
func jitter(d time.Duration) time.Duration {
	return d - time.Duration(rand.Int64N(int64(d)/10+1))
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
