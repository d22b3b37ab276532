package netmap

import (
	"context"
	"errors"
	"testing"

	"tailscale.com/ipn/ipnstate"
)

// A status is kept until the node changes or fails to answer, and none that was
// asked for before a change.
func TestSelfStatus_nodeChanges_isForgotten(t *testing.T) {
	answers := func(version string) func(context.Context) (*ipnstate.Status, error) {
		return func(context.Context) (*ipnstate.Status, error) {
			s := running(peerStatus(1))
			s.Version = version
			return s, nil
		}
	}
	var s selfStatus
	kept := func(what, version string) {
		t.Helper()
		switch last := s.last(); {
		case version == "" && last != nil:
			t.Errorf("%s: %q is kept", what, last.Version)
		case version != "" && (last == nil || last.Version != version):
			t.Errorf("%s: %q is not kept: %+v", what, version, last)
		case last != nil && last.Peer != nil:
			t.Errorf("%s: peers are kept", what)
		}
	}
	ask := func(how func(context.Context) (*ipnstate.Status, error)) *ipnstate.Status {
		status, err := s.refresh(t.Context(), how)
		if err != nil && status != nil {
			t.Errorf("%+v, %v", status, err)
		}
		return status
	}
	kept("at first", "")
	if status := ask(answers("a")); status == nil || len(status.Peer) != 1 {
		t.Errorf("the answer lacks its peers: %+v", status)
	}
	kept("once asked", "a")
	s.set(&ipnstate.Status{Version: "b", Peer: running(peerStatus(1)).Peer})
	kept("when a watch begins", "b")
	s.forget()
	kept("when the node has changed", "")
	ask(func(ctx context.Context) (*ipnstate.Status, error) {
		s.forget()
		return answers("c")(ctx)
	})
	kept("asked for before a change", "")
	ask(func(ctx context.Context) (*ipnstate.Status, error) {
		s.set(&ipnstate.Status{Version: "e"})
		return answers("d")(ctx)
	})
	kept("asked for before a watch began", "e")
	ask(func(context.Context) (*ipnstate.Status, error) { return nil, errors.New("boom") })
	kept("when the node fails", "")
	ask(answers("f"))
	ask(func(context.Context) (*ipnstate.Status, error) { return nil, nil })
	kept("when the node says nothing", "")
}
