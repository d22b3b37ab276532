package provider

import (
	"context"
	"sync"

	"tailscale.com/ipn/ipnstate"
)

// self is the last status of the control plane's own node, without peers. While the
// node configures itself by a new netmap, for some milliseconds, it answers nobody;
// a change of a peer need not wait for that.
type self struct {
	mu     sync.Mutex
	status *ipnstate.Status // nil if the node must be asked
	asked  int              // which status is the newest that may be kept
}

// last is the status that is kept; nil if none is.
func (s *self) last() *ipnstate.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// forget drops the status: the node has changed since, also since it was asked for
// one that did not come yet.
func (s *self) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.asked = nil, s.asked+1
}

// ask asks for a status, and keeps it unless the node changed meanwhile. The caller
// says what it was doing if that fails.
func (s *self) ask(ctx context.Context, ask func(context.Context) (*ipnstate.Status, error)) (*ipnstate.Status, error) {
	s.mu.Lock()
	asked := s.asked
	s.mu.Unlock()
	status, err := ask(ctx)
	if err != nil || status == nil {
		s.forget() // what it said before is no answer
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if asked == s.asked {
		s.status = withoutPeers(status)
	}
	return status, nil
}

// keep keeps the status that began a watch.
func (s *self) keep(status *ipnstate.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.asked = withoutPeers(status), s.asked+1
}

// withoutPeers is a status that does not hold all the peers in memory.
func withoutPeers(status *ipnstate.Status) *ipnstate.Status {
	own := *status
	own.Peer = nil
	return &own
}
