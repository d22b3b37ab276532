package tailnet

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"tailscale.com/client/local"
	"tailscale.com/ipn"
	"tailscale.com/ipn/ipnstate"
)

const (
	// warnInterval is how often the log says why the tailnet is not joined yet.
	warnInterval = 30 * time.Second
	// pollInterval is how often the node is asked.
	pollInterval = 250 * time.Millisecond
)

// joinProgress finds out why a node is not on the tailnet yet.
type joinProgress struct {
	server  string // the coordination server's URL
	secret  string // the auth key, which no reason may show
	log     *slog.Logger
	every   time.Duration // between warnings
	failure atomic.Pointer[string]
}

// onLog takes the node's last failure out of its log. Nothing else shows it for
// a node that was on the tailnet before: its health warns after eight minutes.
func (j *joinProgress) onLog(line string) {
	if text, ok := strings.CutPrefix(line, "Received error: "); ok {
		if j.secret != "" {
			text = strings.ReplaceAll(text, j.secret, "[redacted]")
		}
		j.failure.Store(&text)
	}
}

// report calls progress with each new reason, and logs each kind of reason at
// once and then now and again, until ctx ends.
func (j *joinProgress) report(ctx context.Context, lc *local.Client, progress func(reason string)) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	var state, last string
	warned, logged := time.Now(), j.waiting()
	for {
		if status, err := lc.StatusWithoutPeers(ctx); err == nil && status.BackendState != ipn.Running.String() {
			if state != status.BackendState {
				// What failed before belongs to a step that is done; what fails
				// from here on is soon logged again.
				state = status.BackendState
				j.failure.Store(nil)
			}
			what, why := j.reason(status)
			reason := strings.TrimSuffix(what+": "+why, ": ")
			if reason != last {
				last = reason
				progress(reason)
			}
			if news := what != logged && what != j.waiting(); news || time.Since(warned) >= j.every {
				j.log.Warn("not on the tailnet yet", "reason", reason)
				warned, logged = time.Now(), what
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// waiting is the reason as long as nothing is wrong.
func (j *joinProgress) waiting() string { return "waiting for the coordination server " + j.server }

// reason says what the node waits for, and why in its own words.
func (j *joinProgress) reason(s *ipnstate.Status) (what, why string) {
	failure := j.failure.Load()
	switch {
	case s.BackendState == ipn.NeedsMachineAuth.String():
		return "waiting for an admin to approve the device on the tailnet", ""
	case s.AuthURL != "":
		return fmt.Sprintf("waiting for login: open %s, or give an auth key by --authkey", s.AuthURL), ""
	case failure == nil:
		return j.waiting(), ""
	case unreachable(*failure):
		return "cannot reach the coordination server " + j.server, *failure
	default:
		return fmt.Sprintf("the coordination server %s does not let the device in", j.server), *failure
	}
}

// unreachable reports whether a failure is the network's, and not an answer.
func unreachable(failure string) bool {
	for _, text := range []string{"dial ", "connect: ", "no such host", "timeout", "deadline exceeded", "EOF", "reset by peer", "x509", "tls: "} {
		if strings.Contains(failure, text) {
			return true
		}
	}
	return false
}
