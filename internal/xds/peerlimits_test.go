package xds

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/connectivity"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"

	"github.com/tailxds/tailxds/internal/topology/topologytest"
)

// Views are bounded in number. A region without one is told of, and gets one as soon
// as there is room.
func TestViews_manyRegions_bounded(t *testing.T) {
	s := newServer()
	local := mustParse(t, "defaults: {locality: local}")
	if err := publish(s, topologytest.Of(twoRegions()), local); err != nil {
		t.Fatal(err)
	}
	// As many regions as there is room for, whose Envoys stay.
	for i := range mostViews - 1 {
		a := &account{stream: Stream{Region: fmt.Sprint("region-", i)}}
		s.streams.mu.Lock()
		s.streams.open[a] = struct{}{}
		s.streams.mu.Unlock()
		if _, err := s.view(a.stream.Region); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.RegionsWithoutView(); len(got) > 0 || len(s.views.all()) != mostViews {
		t.Fatalf("%d views, without one are %v", len(s.views.all()), got)
	}
	crowded := openDelta(t, start(t, s))
	crowded.send(&discovery.DeltaDiscoveryRequest{
		Node: &core.Node{Id: "node", Locality: &core.Locality{Region: "west"}}, TypeUrl: Eds, ResourceNamesSubscribe: []string{"server"},
	})
	if got := priorities(t, crowded.want(Eds, "")); got != "0:east 0:west 0:westa" {
		t.Errorf("without a view of its own it gets %s, want what callers of no region get", got)
	}
	crowded.settle()
	if got := s.RegionsWithoutView(); !slices.Equal(got, []string{"west"}) {
		t.Errorf("without a view are %v, want west", got)
	}
	// One of the others leaves, and this one takes its place.
	s.streams.mu.Lock()
	for a := range s.streams.open {
		if a.stream.Region == "region-7" {
			delete(s.streams.open, a)
		}
	}
	s.streams.mu.Unlock()
	tags := twoRegions()
	tags["d3"] = []string{"tag:weight-5", "tag:region-east"}
	if err := publish(s, topologytest.Of(tags), local); err != nil {
		t.Fatal(err)
	}
	// The publication is sent to callers of no region, and its ACK finds the new view.
	if got := priorities(t, crowded.want(Eds, "")); got != "0:east 0:west 0:westa" {
		t.Errorf("the publication is %s", got)
	}
	if got := priorities(t, crowded.want(Eds, "")); got != "0:west 0:westa 1:east" {
		t.Errorf("with a view of its own it gets %s", got)
	}
	if got := s.RegionsWithoutView(); len(got) > 0 {
		t.Errorf("without a view are still %v", got)
	}
}

// A view is dropped once no Envoy of its region was there for long. A request that
// comes in the same moment gets another.
func TestViews_unused_dropped(t *testing.T) {
	s, _ := logged()
	old, err := s.view("west")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for _, step := range []struct {
		after time.Duration
		inUse map[string]int
		stays bool
	}{
		{0, nil, true},
		{viewIdle - 1, nil, true},
		{viewIdle, map[string]int{"west": 1}, true},
		{2 * viewIdle, nil, true},
		{3*viewIdle - 1, nil, true},
		{3 * viewIdle, nil, false},
	} {
		s.views.drop(step.inUse, now.Add(step.after))
		if _, there := s.views.all()["west"]; there != step.stays {
			t.Fatalf("after %v it is there: %t, want %t", step.after, there, step.stays)
		}
	}
	sub := stream.NewDeltaSubscription([]string{"server"}, nil, nil, true)
	if _, err := old.CreateDeltaWatch(&cache.DeltaRequest{TypeUrl: Eds}, &sub, make(chan cache.DeltaResponse, 1)); !errors.Is(err, errRetired) {
		t.Errorf("a watch in a view that was dropped: %v", err)
	}
	again, err := s.view("west")
	if err != nil || again == old || again.name == old.name || again.prefix == old.prefix {
		t.Errorf("the next view is the same, or takes its stamps and versions: %v", err)
	}
}

// A view that a stream waits in is never dropped.
func TestViews_waitedIn_stays(t *testing.T) {
	s, _ := logged()
	c := start(t, s)
	waits := openDelta(t, c)
	waits.askFrom("west", "server")
	waits.want(Eds, "")
	waits.settle()
	now := time.Now()
	s.views.drop(nil, now) // as if it were not counted
	s.views.drop(nil, now.Add(2*viewIdle))
	if _, there := s.views.all()["west"]; !there {
		t.Fatal("it is dropped")
	}
	set(t, s, topologytest.Of(map[string][]string{"d1": {"tag:weight-9"}}))
	if got := weights(t, waits.want(Eds, "").GetResources()); got["d1"] != 9 {
		t.Errorf("the stream gets %v", got)
	}
}

// Requests and ACKs are answered while a publication is built.
func TestServer_requestsDuringPublication_answered(t *testing.T) {
	s, _ := logged()
	c := start(t, s)
	known := openDelta(t, c)
	known.askFrom("west", "server")
	known.want(Eds, "")
	known.settle()
	s.mu.Lock() // as it is while resources are built, validated and encoded
	defer s.mu.Unlock()
	for _, url := range []string{Cds, rds, Eds} {
		known.ask(url, nil, "server")
		known.want(url, "")
	}
	fresh := openDelta(t, c)
	fresh.askFrom("west", "server")
	fresh.want(Eds, "")
	if s.EnvoysByRegion()["west"] != 1 {
		t.Errorf("by region %v", s.EnvoysByRegion())
	}
}

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
