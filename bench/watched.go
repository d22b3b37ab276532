package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tailxds/tailxds/internal/provider"
	"github.com/tailxds/tailxds/internal/topology"
)

// watched is ours behind the watch that spaces lists, as it is with a netmap
// that wakes it at each change.
type watched struct {
	*ours
	watcher *provider.Watcher

	mu     sync.Mutex
	weight int
}

func newWatched(s setup) (*watched, error) {
	o, err := newOurs(s)
	if err != nil {
		return nil, err
	}
	w := &watched{ours: o, weight: 1}
	w.watcher = provider.NewWatcher(w, provider.Options{Provider: provider.Netmap, Log: slog.New(slog.DiscardHandler)})
	return w, nil
}

// List implements [provider.Source].
func (w *watched) List(context.Context) ([]topology.Device, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := append([]topology.Device(nil), w.devices...)
	all[0].Tags = tagsOf(w.weight)
	return all, nil
}

// publish serves what the watch tells, until ctx ends.
func (w *watched) publish(ctx context.Context) error {
	go func() { _ = w.watcher.Run(ctx) }() // it ends with ctx, and so says
	for {
		select {
		case <-ctx.Done():
			return nil
		case u := <-w.watcher.Updates():
			if err := w.take(u.Devices); err != nil {
				return fmt.Errorf("publish: %w", err)
			}
		}
	}
}

// burst changes the weight so many times a second, and leaves another at last.
func (w *watched) burst(ctx context.Context, perSecond, seconds, last int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- w.publish(ctx) }()
	tick := time.NewTicker(time.Second / time.Duration(perSecond))
	defer tick.Stop()
	for i := range perSecond * seconds {
		select {
		case err := <-done:
			return err
		case <-tick.C:
		}
		w.set(2 + i%last)
	}
	w.set(last + 2)
	// The last is published within one spacing; who watches will see it.
	select {
	case err := <-done:
		return err
	case <-time.After(time.Second):
		return nil
	}
}

func (w *watched) set(weight int) {
	w.mu.Lock()
	w.weight = weight
	w.mu.Unlock()
	w.watcher.Wake()
}
