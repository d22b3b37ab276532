package netmap

import (
	"context"
	"sync"

	"tailscale.com/ipn/ipnstate"
)

// selfStatus is the last status of the control plane's own node, without peers.
// While the node configures itself by a new netmap, for some milliseconds, it
// answers no question; a change of a peer need not wait for that.
type selfStatus struct {
	mu         sync.Mutex
	status     *ipnstate.Status // nil if the node must be asked
	generation int              // rises with each change, which makes earlier answers old
}

// last returns the last status; nil if the node must be asked.
func (s *selfStatus) last() *ipnstate.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// forget drops the status, because the node has changed; an answer that is under
// way is old, too.
func (s *selfStatus) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.generation = nil, s.generation+1
}

// refresh asks for a status, and stores it unless the node changed meanwhile. The
// caller says what failed.
func (s *selfStatus) refresh(ctx context.Context, ask func(context.Context) (*ipnstate.Status, error)) (*ipnstate.Status, error) {
	s.mu.Lock()
	generation := s.generation
	s.mu.Unlock()
	status, err := ask(ctx)
	if err != nil || status == nil {
		s.forget() // a node that fails has no status
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if generation == s.generation {
		s.status = withoutPeers(status)
	}
	return status, nil
}

// set stores the status that began a watch.
func (s *selfStatus) set(status *ipnstate.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.generation = withoutPeers(status), s.generation+1
}

// withoutPeers returns a status that does not keep all peers in memory.
func withoutPeers(status *ipnstate.Status) *ipnstate.Status {
	own := *status
	own.Peer = nil
	return &own
}
