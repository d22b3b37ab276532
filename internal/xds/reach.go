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

// reach keeps account of one publication.
type reach struct {
	number uint64
	at     time.Time
	over   bool // what is sent now is of something else
	last   time.Time
}

// reached is how far one Envoy is with a publication.
type reached struct {
	number        uint64 // 0 is with none
	all, rejected bool
}

// publishing begins a publication.
func (s *streams) publishing() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reach = reach{number: s.reach.number + 1, at: time.Now()}
}

// published ends one: what is sent from now on is of something else, but
// answers still count.
func (s *streams) published() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reach.over = true
}

// sent notes that an Envoy is told something.
func (r *reach) sent(a *account) {
	switch {
	case r.number == 0 || r.over || a.stream.Since.After(r.at):
	case a.number == r.number:
		a.all = false
	default:
		a.reached = reached{number: r.number}
	}
}

// answered notes an answer of an Envoy.
func (r *reach) answered(a *account, rejected bool) {
	if r.number == 0 || a.number != r.number {
		return
	}
	a.rejected = a.rejected || rejected
	if !a.all && !a.due() {
		a.all, r.last = true, time.Now()
	}
}

// Rollout is how far Envoys are with what was published last.
func (s *Server) Rollout() Rollout {
	s.streams.mu.Lock()
	defer s.streams.mu.Unlock()
	r := s.streams.reach
	out := Rollout{Publication: r.number}
	for a := range s.streams.open {
		if r.number == 0 || a.number != r.number {
			continue
		}
		out.Told++
		switch {
		case a.rejected:
			out.Rejected++
		case a.all:
			out.Acked++
		}
	}
	if !r.last.IsZero() {
		out.After = r.last.Sub(r.at)
	}
	return out
}
