package xds

import (
	"sync"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// maxHold is how long routes wait for clusters: longer than a health check,
// and no longer than an operator would wait for an edit.
const maxHold = 5 * time.Second

// warmupGate makes routes and listeners wait for the clusters that were sent
// before them. An Envoy answers new clusters only once they are warm, which
// takes a health check; a route to one that is not answers 503 until then.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/intro/arch_overview/upstream/cluster_manager#cluster-warming
type warmupGate struct {
	send func(any) error

	// mu keeps the messages of one stream apart, as gRPC wants it. Nothing else
	// waits for it.
	mu     sync.Mutex
	nonce  string // of the clusters that are not answered yet
	held   []any
	timer  *time.Timer
	closed bool
}

// response is a message to an Envoy, of either protocol.
type response interface {
	GetTypeUrl() string
	GetNonce() string
}

// forward sends a message, now or once the clusters before it are answered.
func (s *warmupGate) forward(m any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := m.(response); ok {
		switch r.GetTypeUrl() {
		case resource.ClusterType:
			s.nonce = r.GetNonce()
			s.startTimer(s.nonce)
		case resource.RouteType, resource.ListenerType:
			if s.nonce != "" {
				s.held = append(s.held, m)
				return nil
			}
		}
	}
	return s.send(m)
}

// startTimer releases what is held after [maxHold].
func (s *warmupGate) startTimer(nonce string) {
	if s.timer != nil {
		s.timer.Stop()
	}
	s.timer = time.AfterFunc(maxHold, func() { _ = s.release(resource.ClusterType, nonce) }) // a broken stream ends by itself
}

// release sends what is held if this is the answer, an ACK or a NACK, that it waits for.
func (s *warmupGate) release(url, nonce string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if url != resource.ClusterType || nonce == "" || nonce != s.nonce || s.closed {
		return nil
	}
	s.timer.Stop()
	held := s.held
	s.nonce, s.held = "", nil
	for _, m := range held {
		if err := s.send(m); err != nil {
			return err
		}
	}
	return nil
}

// close drops what is held. Nothing is sent any more.
func (s *warmupGate) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed, s.held = true, nil
	if s.timer != nil {
		s.timer.Stop()
	}
}
