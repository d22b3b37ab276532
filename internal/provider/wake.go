package provider

import (
	"context"
	"sync"
)

// watching is a source that knows when its list may have changed. Watch calls
// wake then, and returns when ctx is done. wake never blocks.
type watching interface {
	Watch(ctx context.Context, wake func())
}

// linked is a source that knows whether the control plane itself is in touch
// with the coordination server.
type linked interface {
	LinkUp() bool
}

// watchAll watches those sources that can be watched.
func watchAll(ctx context.Context, wake func(), sources ...any) {
	var group sync.WaitGroup
	for _, src := range sources {
		if w, ok := src.(watching); ok {
			group.Go(func() { w.Watch(ctx, wake) })
		}
	}
	group.Wait()
}
