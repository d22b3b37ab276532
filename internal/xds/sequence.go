package xds

import (
	"sync"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// longestHold is how long routes wait for clusters: longer than a health check,
// and no longer than anybody would wait for an edit.
const longestHold = 5 * time.Second

// sequence makes routes and listeners wait for the clusters that were sent
// before them. An Envoy answers new clusters only once they are warm, which
// takes a health check; a route to one that is not answers 503 until then.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/intro/arch_overview/upstream/cluster_manager#cluster-warming
type sequence struct {
	send func(any) error

	// mu keeps the messages of one stream apart, as gRPC wants it. Nothing else
	// waits for it.
	mu    sync.Mutex
	nonce string // of the clusters that are not answered yet
	held  []any
	timer *time.Timer
	over  bool
}

// response is a message to an Envoy, of either protocol.
type response interface {
	GetTypeUrl() string
	GetNonce() string
}

// put sends a message, now or when its turn comes.
func (s *sequence) put(m any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := m.(response); ok {
		switch r.GetTypeUrl() {
		case resource.ClusterType:
			s.nonce = r.GetNonce()
			s.wait(s.nonce)
		case resource.RouteType, resource.ListenerType:
			if s.nonce != "" {
				s.held = append(s.held, m)
				return nil
			}
		}
	}
	return s.send(m)
}

// wait lets go of what is held once it has waited long enough.
func (s *sequence) wait(nonce string) {
	if s.timer != nil {
		s.timer.Stop()
	}
	s.timer = time.AfterFunc(longestHold, func() { _ = s.answered(resource.ClusterType, nonce) }) // a broken stream ends by itself
}

// answered takes an ACK or a NACK.
func (s *sequence) answered(url, nonce string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if url != resource.ClusterType || nonce == "" || nonce != s.nonce || s.over {
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

// end has nothing sent any more.
func (s *sequence) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over, s.held = true, nil
	if s.timer != nil {
		s.timer.Stop()
	}
}
