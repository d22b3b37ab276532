package xds

import (
	"testing"
	"time"

	"github.com/tailxds/tailxds/internal/envoy"
	"github.com/tailxds/tailxds/internal/topology/topologytest"
)

func TestRollout_streams_areCounted(t *testing.T) {
	s := newServer()
	set(t, s, topologytest.OneService())
	client := start(t, s)
	first, second := openDelta(t, client), openDelta(t, client)
	for _, stream := range []deltaStream{first, second} {
		stream.ask(Eds, nil, "server")
		stream.want(Eds, "")
		stream.settle()
	}
	if r := s.Rollout(); r.Publication != 1 || r.Told != 0 {
		t.Errorf("who connects later is not counted: %+v", r)
	}
	await := func(what string, ok func(Rollout) bool) Rollout {
		t.Helper()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for end := time.After(20 * time.Second); ; {
			r := s.Rollout()
			if ok(r) {
				return r
			}
			select {
			case <-end:
				t.Fatalf("%s: %+v", what, r)
			case <-tick.C:
			}
		}
	}
	set(t, s, topologytest.Of(map[string][]string{"d1": {"tag:weight-7"}, "d2": {"tag:weight-2"}}))
	await("both are told", func(r Rollout) bool { return r == Rollout{Publication: 2, Told: 2} })
	first.want(Eds, "")
	await("one has it", func(r Rollout) bool { return r.Told == 2 && r.Acked == 1 && r.Rejected == 0 && r.After > 0 })
	set(t, s, topologytest.Of(map[string][]string{"d1": {"tag:weight-7"}, "d2": {"tag:weight-2"}}))
	if r := s.Rollout(); r.Publication != 2 {
		t.Errorf("what changes nothing is no publication: %+v", r)
	}
	second.want(Eds, "no, thanks")
	last := await("the other rejects it", func(r Rollout) bool { return r.Acked == 1 && r.Rejected == 1 })

	// Where requests enter is published on its own, and is no part of it.
	for _, stream := range []deltaStream{first, second} {
		stream.ask(Eds, nil, envoy.LocalCluster)
		stream.want(Eds, "")
	}
	if err := s.publishLocalCluster(map[string]uint32{"west": 1}); err != nil {
		t.Fatal(err)
	}
	first.want(Eds, "")
	first.ask(rds, nil, envoy.IngressListener) // answered in order
	first.want(rds, "")
	if r := s.Rollout(); r.Told != last.Told || r.Acked != 1 {
		t.Errorf("got %+v after the entries, had %+v", r, last)
	}
}
