package xds

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"google.golang.org/grpc/connectivity"
)

// A connection without a stream ends.
func TestServer_connectionWithoutStream_ends(t *testing.T) {
	s, _ := logged()
	s.connectionIdle = 20 * time.Millisecond
	conn := connect(t, s)
	conn.Connect()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for state := conn.GetState(); ; state = conn.GetState() {
		s.quotas.mu.Lock()
		came := s.quotas.of[netip.MustParseAddr("127.0.0.1")] != nil
		s.quotas.mu.Unlock()
		if state == connectivity.Idle && came {
			break // the server has ended it
		}
		if !conn.WaitForStateChange(ctx, state) {
			t.Fatalf("it is still %v", state)
		}
	}
}
