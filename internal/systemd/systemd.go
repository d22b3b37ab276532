// Package systemd tells systemd that the program has started, and how it stands.
package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mdlayher/sdnotify"
)

const (
	// tellEvery is how often a supervisor is told how it stands, if that has changed.
	tellEvery = 250 * time.Millisecond
	// startPatience is how long a start waits for the first resources. A start that
	// waits for a person, or for the coordination server, ends then: neither a boot
	// nor a shell should wait with it.
	startPatience = 30 * time.Second
)

// Notifier gives words to systemd, where that runs this program and waits for
// them (Type=notify in the unit). Elsewhere, and with an error, they go nowhere:
// that nobody can be told is no reason to serve nobody.
func Notifier() (tell func(words ...string), err error) {
	s, err := sdnotify.New()
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	} else if err != nil {
		err = fmt.Errorf("reach the supervisor that %s names: %w", sdnotify.Socket, err)
	}
	return func(words ...string) { _ = s.Notify(words...) }, err
}

// Report says that the start is over, once resources are served or
// patience is at its end, and how it stands, until ctx ends.
func Report(ctx context.Context, tell func(words ...string), readiness func() (ready bool, detail string)) {
	tick, patience := time.NewTicker(tellEvery), time.NewTimer(startPatience)
	defer tick.Stop()
	defer patience.Stop()
	started, over, last := false, false, ""
	for {
		ready, detail := readiness()
		if (ready || over) && !started {
			started = true
			tell(sdnotify.Ready)
		}
		if detail != last {
			last = detail
			tell(sdnotify.Statusf("%s", detail))
		}
		select {
		case <-ctx.Done():
			tell(sdnotify.Stopping)
			return
		case <-patience.C:
			over = true
		case <-tick.C:
		}
	}
}
