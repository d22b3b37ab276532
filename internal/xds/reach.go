package xds

import "time"

// Reach is how far Envoys are with what was published last: with the last
// [Server.Set] that changed any resource. Envoys that connected later do not
// count.
type Reach struct {
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
	told   map[streamKey]*taken
	last   time.Time
}

type taken struct{ all, rejected bool }

// publishing begins a publication.
func (s *streams) publishing() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reach = reach{number: s.reach.number + 1, at: time.Now(), told: make(map[streamKey]*taken)}
}

// published ends one: what is sent from now on is of something else, but
// answers still count.
func (s *streams) published() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reach.over = true
}

// sent notes that an Envoy is told something.
func (r *reach) sent(key streamKey, since time.Time) {
	if r.number == 0 || r.over || since.After(r.at) {
		return
	}
	if t := r.told[key]; t != nil {
		t.all = false
		return
	}
	r.told[key] = &taken{}
}

// answered notes an answer of an Envoy, and whether others are still due.
func (r *reach) answered(key streamKey, rejected, due bool) {
	t := r.told[key]
	if t == nil {
		return
	}
	t.rejected = t.rejected || rejected
	if !due && !t.all {
		t.all, r.last = true, time.Now()
	}
}

// Reach is how far Envoys are with what was published last.
func (s *Server) Reach() Reach {
	s.streams.mu.Lock()
	defer s.streams.mu.Unlock()
	r := s.streams.reach
	out := Reach{Publication: r.number, Told: len(r.told)}
	for _, t := range r.told {
		if t.rejected {
			out.Rejected++
		} else if t.all {
			out.Acked++
		}
	}
	if !r.last.IsZero() {
		out.After = r.last.Sub(r.at)
	}
	return out
}
