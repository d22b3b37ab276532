package xds

import "time"

// Rollout is how far Envoys are with what was published last: with the last
// [Server.Publish] that changed any resource. Envoys that connected later do not
// count.
type Rollout struct {
	// Publication counts up with each, from 1 on.
	Publication uint64
	// Told is how many Envoys were sent something of it, Acked how many of them have
	// taken all, and Rejected how many refused a part.
	Told, Acked, Rejected int
	// After is how long the last one of them took; 0 while none has.
	After time.Duration
}

// rollout follows one publication.
type rollout struct {
	number uint64
	at     time.Time
	ended  bool // what is sent now is no part of it
	last   time.Time
}

// rolloutState is how far one Envoy is with a publication.
type rolloutState struct {
	number          uint64 // 0 is with none
	acked, rejected bool
}

// beginRollout begins a publication.
func (s *streams) beginRollout() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rollout = rollout{number: s.rollout.number + 1, at: time.Now()}
}

// endRollout ends one: what is sent from now on is of something else, but
// answers still count.
func (s *streams) endRollout() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rollout.ended = true
}

// recordSent records that an Envoy is sent something.
func (r *rollout) recordSent(a *streamState) {
	switch {
	case r.number == 0 || r.ended || a.stream.Since.After(r.at):
	case a.number == r.number:
		a.acked = false
	default:
		a.rolloutState = rolloutState{number: r.number}
	}
}

// recordAnswer records an ACK or a NACK of an Envoy.
func (r *rollout) recordAnswer(a *streamState, rejected bool) {
	if r.number == 0 || a.number != r.number {
		return
	}
	a.rejected = a.rejected || rejected
	if !a.acked && !a.awaitsAnswer() {
		a.acked, r.last = true, time.Now()
	}
}

// Rollout returns how far Envoys are with what was published last.
func (s *Server) Rollout() Rollout {
	s.streams.mu.Lock()
	defer s.streams.mu.Unlock()
	r := s.streams.rollout
	out := Rollout{Publication: r.number}
	for a := range s.streams.open {
		if r.number == 0 || a.number != r.number {
			continue
		}
		out.Told++
		switch {
		case a.rejected:
			out.Rejected++
		case a.acked:
			out.Acked++
		}
	}
	if !r.last.IsZero() {
		out.After = r.last.Sub(r.at)
	}
	return out
}
