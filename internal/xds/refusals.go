package xds

import (
	"log/slog"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"time"
	"unicode"
)

// An Envoy that is refused comes again every few seconds, for as long as it
// lives: each peer's refusal is logged once, and then once a minute.
const (
	refusalEvery = time.Minute
	maxRefusals  = 1_000 // that are remembered
)

// refusals logs refused streams without flooding the log.
type refusals struct {
	log *slog.Logger

	mu     sync.Mutex
	logged map[refusal]*logEntry
}

// refusal is a peer and why it was refused, without numbers: a reason may name
// the port, which is another one each time. The zero value stands for all that
// there is no room for.
type refusal struct {
	peer   netip.Addr
	reason string
}

type logEntry struct {
	at    time.Time
	since int // refusals that were not logged
}

func newRefusals(log *slog.Logger) *refusals {
	return &refusals{log: log, logged: make(map[refusal]*logEntry)}
}

func (r *refusals) logRefusal(now time.Time, peer netip.AddrPort, device, reason string) {
	reason = sanitize(reason)
	more, due := r.due(now, refusal{peer.Addr(), strings.Map(withoutDigits, reason)})
	if due {
		r.log.Warn("stream refused", "peer", peer.String(), "device", sanitize(device), "reason", reason, "more_since_last_told", more)
	}
}

func withoutDigits(r rune) rune {
	if unicode.IsDigit(r) {
		return -1
	}
	return r
}

// due reports whether a refusal is to be logged now, and how many were not.
func (r *refusals) due(now time.Time, key refusal) (more int, due bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.logged[key] == nil && len(r.logged) >= maxRefusals {
		key = r.makeRoom(now, key)
	}
	last := r.logged[key]
	switch {
	case last == nil:
	case now.Sub(last.at) < refusalEvery:
		last.since++
		return 0, false
	default:
		more = last.since
	}
	r.logged[key] = &logEntry{at: now}
	return more, true
}

// makeRoom forgets, once in a while, who came no more. It returns the key under
// which a new refusal is remembered.
func (r *refusals) makeRoom(now time.Time, key refusal) refusal {
	var rest refusal
	if shared := r.logged[rest]; shared != nil && now.Sub(shared.at) < refusalEvery {
		return rest
	}
	maps.DeleteFunc(r.logged, func(k refusal, old *logEntry) bool { return k != rest && now.Sub(old.at) >= refusalEvery })
	if len(r.logged) < maxRefusals {
		return key
	}
	return rest
}
