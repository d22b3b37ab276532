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
// lives: each peer's refusal is told once, and then now and again.
const (
	refusalEvery = time.Minute
	mostRefusals = 1_000 // that are remembered
)

// refusals tells of refused streams without flooding the log.
type refusals struct {
	log *slog.Logger

	mu   sync.Mutex
	told map[refusal]*retold
}

// refusal is a peer and why it was refused, without numbers: a reason may name
// the port, which is another one each time. The zero value stands for all that
// there is no room for.
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
	reason = clean(reason)
	more, due := r.due(now, refusal{peer.Addr(), strings.Map(withoutDigits, reason)})
	if due {
		r.log.Warn("stream refused", "peer", peer.String(), "device", clean(device), "reason", reason, "more_since_last_told", more)
	}
}

func withoutDigits(r rune) rune {
	if unicode.IsDigit(r) {
		return -1
	}
	return r
}

// due tells whether a refusal is to be told now, and how many were not.
func (r *refusals) due(now time.Time, key refusal) (more int, due bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.told[key] == nil && len(r.told) >= mostRefusals {
		key = r.makeRoom(now, key)
	}
	last := r.told[key]
	switch {
	case last == nil:
	case now.Sub(last.at) < refusalEvery:
		last.since++
		return 0, false
	default:
		more = last.since
	}
	r.told[key] = &retold{at: now}
	return more, true
}

// makeRoom forgets, once in a while, who came no more. It returns the key under
// which a new refusal is remembered.
func (r *refusals) makeRoom(now time.Time, key refusal) refusal {
	var rest refusal
	if shared := r.told[rest]; shared != nil && now.Sub(shared.at) < refusalEvery {
		return rest
	}
	maps.DeleteFunc(r.told, func(k refusal, old *retold) bool { return k != rest && now.Sub(old.at) >= refusalEvery })
	if len(r.told) < mostRefusals {
		return key
	}
	return rest
}
