package xds

import (
	"context"
	"net/netip"
)

// Connected are the addresses of the devices that have a stream open.
func (s *Server) Connected() map[netip.Addr]bool {
	s.streams.mu.Lock()
	defer s.streams.mu.Unlock()
	all := make(map[netip.Addr]bool)
	for _, stream := range s.streams.open {
		all[stream.Address.Addr()] = true
	}
	return all
}

// Recheck judges the open streams again.
func (s *Server) Recheck(context.Context) {}
