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

	"github.com/tailxds/tailxds/internal/topology"
)

// Options say how a [Watcher] asks and what it believes. The zero value works.
type Options struct {
	// Provider is the source's name, as [Open] returned it.
	Provider string
	// Interval is the longest time between lists; 0 means 15 s.
	Interval time.Duration
	// Spacing is the shortest time between the starts of two lists, however
	// often the source wakes; 0 means what the Provider can bear: 100 ms, half
	// a second for headscale and two for Tailscale.
	Spacing time.Duration
	// Timeout bounds one list; 0 means one minute.
	Timeout time.Duration
	// StateFile is where the last good list is kept; empty means nowhere.
	StateFile string
	// Serving returns the IDs of the devices that a list makes endpoints,
	// drained ones too, so that a drain is not taken for a loss. It is what a
	// list is judged by; nil means that every online device serves. It must
	// not call the watcher.
	Serving func([]topology.Device) map[string]bool
	// HoldFraction is the share of the serving devices above which a list that
	// lacks them is held; 0 means one half, and 1 that none is held.
	HoldFraction float64
	// HoldFor is how long such lists must keep coming until the last of them
	// is applied; 0 means one minute.
	HoldFor time.Duration
	// LinkUp tells whether the control plane is in touch with the coordination
	// server; nil means to ask the source, if it knows.
	LinkUp func() bool
	// Log is where failures and recoveries are told; nil means the default.
	Log *slog.Logger
}

func (o Options) withDefaults(src Source) Options {
	o.Interval = cmp.Or(o.Interval, 15*time.Second)
	o.Spacing = cmp.Or(o.Spacing, spacing(o.Provider))
	o.Timeout = cmp.Or(o.Timeout, time.Minute)
	o.HoldFraction = cmp.Or(o.HoldFraction, 0.5)
	o.HoldFor = cmp.Or(o.HoldFor, time.Minute)
	o.Log = cmp.Or(o.Log, slog.Default())
	if o.Serving == nil {
		o.Serving = online
	}
	if link, ok := src.(linked); ok && o.LinkUp == nil {
		o.LinkUp = link.LinkUp
	}
	if o.LinkUp == nil {
		o.LinkUp = func() bool { return true }
	}
	return o
}

func spacing(provider string) time.Duration {
	switch provider {
	case Headscale:
		return 500 * time.Millisecond // the check of an API key costs it 80 ms
	case Tailscale:
		return 2 * time.Second // its limits are not published
	default:
		return 100 * time.Millisecond
	}
}

func online(devices []topology.Device) map[string]bool {
	ids := make(map[string]bool)
	for _, d := range devices {
		if d.Online {
			ids[d.ID] = true
		}
	}
	return ids
}

// Status is how a [Watcher] fares, for people and metrics.
type Status struct {
	Provider string `json:"provider"`
	// LastGood is when the source last gave a list; zero if it never did.
	LastGood time.Time `json:"lastGood,omitzero"`
	// Stale says that the list in use is not the source's answer of now: the
	// source fails, or the list was read from disk.
	Stale bool `json:"stale"`
	// Error is what the source failed with, and Failures how often in a row.
	Error    string `json:"error,omitempty"`
	Failures int    `json:"failures"`
	// Denied says that the source refuses the credential: a person has to act.
	Denied bool `json:"denied,omitempty"`
	// Held is set while a list waits to be believed.
	Held *Held `json:"held,omitempty"`
	// Devices is how many devices the list in use has.
	Devices int `json:"devices"`
}

// Watcher asks a source for its devices again and again, and passes on each
// list that is new and believed.
type Watcher struct {
	src     Source
	opts    Options
	store   store
	updates chan []topology.Device
	woken   chan struct{}

	mu      sync.Mutex
	status  Status
	current []topology.Device // the list in use
	has     bool              // whether there is one
	waiting []topology.Device // the list that is held
	served  serving
	retry   *backoff.ExponentialBackOff
}

// NewWatcher returns a watcher of src. It does nothing until Run.
func NewWatcher(src Source, opts Options) *Watcher {
	opts = opts.withDefaults(src)
	return &Watcher{
		src: src, opts: opts,
		store:   store{opts.StateFile, opts.Provider, opts.Log},
		updates: make(chan []topology.Device, 1),
		woken:   make(chan struct{}, 1),
		status:  Status{Provider: opts.Provider},
		served:  serving{window: opts.HoldFor},
		retry: &backoff.ExponentialBackOff{
			InitialInterval: 500 * time.Millisecond, RandomizationFactor: 0.5, Multiplier: 2,
			MaxInterval: max(opts.Interval, time.Second),
		},
	}
}

// Updates gives each list that is new and believed. A list that nobody has
// taken yet is replaced by the next. The lists must not be changed.
func (w *Watcher) Updates() <-chan []topology.Device { return w.updates }

// Status tells how the watcher fares.
func (w *Watcher) Status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.status
	if s.Held != nil {
		s.Held = new(*s.Held)
	}
	return s
}

// errNothingHeld answers an Accept that has nothing to let through.
var errNothingHeld = errors.New("no list is held; there is nothing to accept")

// Accept applies the list that is held now.
func (w *Watcher) Accept() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.status.Held == nil {
		return errNothingHeld
	}
	w.opts.Log.Warn("a held device list was let through by an operator", "lacks", w.status.Held.Lacks, "of", w.status.Held.Of)
	w.apply(w.waiting, w.opts.Serving(settled(w.waiting)), time.Now())
	return nil
}

// Run lists, retries and holds until ctx is done.
func (w *Watcher) Run(ctx context.Context) error {
	var watchers sync.WaitGroup
	defer watchers.Wait()
	watchers.Go(func() { watchAll(ctx, w.wake, w.src) })

	w.restore()
	for {
		started := time.Now()
		err := w.list(ctx)
		if ctx.Err() != nil {
			return fmt.Errorf("watch devices: %w", ctx.Err())
		}
		w.wait(ctx, started, err)
	}
}

func (w *Watcher) wake() {
	select {
	case w.woken <- struct{}{}:
	default: // one is waiting already
	}
}

// restore begins with the list that was kept on disk, marked stale.
func (w *Watcher) restore() {
	kept, confirmed := w.store.load()
	if kept == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.opts.Log.Info("serving the device list kept on disk until the source answers",
		"devices", len(kept.Devices), "from", confirmed)
	w.status.LastGood, w.status.Stale = confirmed, true
	// Another source may know the same devices by other IDs, so that its first
	// list would seem to lack them all.
	if kept.Provider == w.opts.Provider {
		w.served.replace(time.Now(), w.opts.Serving(settled(kept.Devices)))
	}
	w.publish(kept.Devices)
}

// list asks the source once.
func (w *Watcher) list(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, w.opts.Timeout)
	defer cancel()
	devices, err := w.src.List(ctx)

	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if err != nil {
		w.failed(err, now)
		return err // the source says what it was doing
	}
	w.succeeded(now)
	// Sorted, so that the same devices in another order are no news.
	slices.SortStableFunc(devices, func(a, b topology.Device) int { return topology.CompareIDs(a.ID, b.ID) })
	stamp(devices, w.seen(), now)
	if w.has && w.status.Held == nil && same(w.current, devices) {
		w.store.confirm(now)
		return nil
	}
	ids := w.opts.Serving(settled(devices))
	if w.believe(ids, now) {
		w.apply(devices, ids, now)
	} else {
		w.waiting = devices
	}
	return nil
}

// seen is the latest list that was seen, held or not.
func (w *Watcher) seen() []topology.Device {
	if w.waiting != nil {
		return w.waiting
	}
	return w.current
}

func (w *Watcher) failed(err error, now time.Time) {
	news := w.status.Error != err.Error()
	w.status.Error, w.status.Stale = err.Error(), true
	w.status.Failures++
	w.status.Denied = errors.Is(err, errDenied)
	age := "none yet"
	if !w.status.LastGood.IsZero() {
		age = now.Sub(w.status.LastGood).Round(time.Second).String()
	}
	switch {
	case !news:
		w.opts.Log.Debug("devices can't be listed", "error", err, "failures", w.status.Failures)
	case w.status.Denied:
		w.opts.Log.Error("devices can't be listed: the credential is refused; serving the last good list. Renew the token or its scopes",
			"error", err, "age", age)
	default:
		w.opts.Log.Warn("devices can't be listed; serving the last good list", "error", err, "age", age)
	}
}

func (w *Watcher) succeeded(now time.Time) {
	if w.status.Failures > 0 {
		w.opts.Log.Info("devices are listed again", "failures", w.status.Failures)
	}
	w.status.Error, w.status.Failures, w.status.Denied = "", 0, false
	w.status.LastGood, w.status.Stale = now, false
	w.retry.Reset()
}

// believe tells whether a list that lets the devices with these IDs serve may
// be applied now, and keeps account of it if not.
func (w *Watcher) believe(ids map[string]bool, now time.Time) bool {
	removed, lacks, of := w.served.lacks(now, ids)
	linkUp := w.opts.LinkUp()
	tooMuch := float64(lacks) > w.opts.HoldFraction*float64(of)
	if removed == 0 || (linkUp && !tooMuch) {
		return true
	}
	held := w.status.Held
	if held == nil {
		held = &Held{Since: now}
	}
	held.confirm(now, linkUp)
	held.Lacks, held.Of = lacks, of
	if held.stood(now, w.opts.HoldFor) {
		w.opts.Log.Warn("a held device list has stood its time and is applied", "lacks", lacks, "of", of, "since", held.Since)
		return true
	}
	held.Reason = w.reason(held, linkUp)
	if w.status.Held == nil {
		w.opts.Log.Warn("a device list is held", "reason", held.Reason)
	}
	w.status.Held = held
	return false
}

func (w *Watcher) reason(h *Held, linkUp bool) string {
	if !linkUp {
		return fmt.Sprintf("%d of %d serving devices are missing or offline while the control plane's own link to the coordination server is down; "+
			"judged again when the link is back, or applied at once by `tailxds accept`", h.Lacks, h.Of)
	}
	return fmt.Sprintf("%d of %d serving devices are missing or offline at once; applied at %s if that stands, or at once by `tailxds accept`",
		h.Lacks, h.Of, h.standing.Add(w.opts.HoldFor).Format(time.TimeOnly))
}

// apply makes the list the one in use.
func (w *Watcher) apply(devices []topology.Device, ids map[string]bool, now time.Time) {
	wasHeld := w.status.Held != nil
	w.waiting, w.status.Held = nil, nil
	w.served.replace(now, ids)
	if wasHeld {
		w.served.forgive()
	}
	if w.has && same(w.current, devices) {
		w.store.confirm(now)
		return
	}
	w.publish(devices)
	w.store.save(devices)
}

// publish hands the list on, in place of one that nobody took.
func (w *Watcher) publish(devices []topology.Device) {
	w.current, w.has, w.status.Devices = devices, true, len(devices)
	select {
	case <-w.updates:
	default:
	}
	w.updates <- devices
}

// While the credential is refused the source is asked once in deniedWait. What
// wakes it may have mended that, but is not followed oftener than deniedSpacing.
const (
	deniedWait    = time.Minute
	deniedSpacing = 10 * time.Second
)

// wait sleeps until the next list is due or the source wakes. It wakes from a
// failure too, since what woke it may have mended it, but not where the source
// asked to be left alone.
func (w *Watcher) wait(ctx context.Context, started time.Time, err error) {
	pause, quiet := w.pause(err)
	quiet = max(quiet, w.opts.Spacing-time.Since(started), 0)
	sleep(ctx, quiet)
	timer := time.NewTimer(max(pause-quiet, 0))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-w.woken:
	}
}

// pause is how long to wait after a list, and for how much of that no wake is
// followed.
func (w *Watcher) pause(err error) (pause, quiet time.Duration) {
	var asked interface{ RetryAfter() time.Duration }
	switch {
	case err == nil:
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.untilNext(), 0
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

// untilNext is the poll interval, or less if a held list comes due before.
func (w *Watcher) untilNext() time.Duration {
	pause := jitter(w.opts.Interval)
	if h := w.status.Held; h != nil && !h.standing.IsZero() {
		if due := time.Until(h.standing.Add(w.opts.HoldFor)); due > 0 {
			pause = min(pause, due)
		}
	}
	return pause
}

// jitter takes up to a tenth off, so that control planes that started at once
// don't ask at once.
func jitter(d time.Duration) time.Duration {
	return d - time.Duration(rand.Int64N(int64(d)/10+1))
}
