package xds

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// An Envoy that is refused comes again every few seconds, for as long as it
// lives: each peer's refusal is told once, and then now and again.
const (
	refusalEvery = time.Minute
	mostRefusals = 1_000 // peers that are remembered
)

// refusals tells of refused streams without flooding the log.
type refusals struct {
	log *slog.Logger

	mu   sync.Mutex
	told map[refusal]*retold
}

type refusal struct {
	peer   netip.Addr
	reason string
}

type retold struct {
	at    time.Time
	since int // refusals that were not told
}

func newRefusals(log *slog.Logger) *refusals {
	return &refusals{log: log, told: make(map[refusal]*retold)}
}

func (r *refusals) tell(now time.Time, peer netip.AddrPort, device, reason string) {
	more, due := r.due(now, refusal{peer.Addr(), reason})
	if due {
		r.log.Warn("stream refused", "peer", peer.String(), "device", device, "reason", reason, "more_since_last_told", more)
	}
}

// due tells whether a refusal is to be told now, and how many were not.
func (r *refusals) due(now time.Time, key refusal) (more int, due bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, known := r.told[key]
	if !known {
		if len(r.told) >= mostRefusals {
			clear(r.told) // better some told twice than a list that only grows
		}
		r.told[key] = &retold{at: now}
		return 0, true
	}
	if now.Sub(last.at) < refusalEvery {
		last.since++
		return 0, false
	}
	more = last.since
	*last = retold{at: now}
	return more, true
}
