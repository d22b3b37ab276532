package xds

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/tailxds/tailxds/internal/policy"
	"github.com/tailxds/tailxds/internal/topology"

	"github.com/tailxds/tailxds/internal/envoy"
	"github.com/tailxds/tailxds/internal/topology/topologytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestServer_adsOnly_getsEverything(t *testing.T) {
	s := newServer()
	set(t, s, topologytest.OneService())
	stream := openDelta(t, start(t, s))
	stream.ask(Cds, nil, "*")
	if r := stream.want(Cds, ""); len(r.GetResources()) != 1 || r.GetResources()[0].GetName() != "server" {
		t.Errorf("clusters: %v", r.GetResources())
	}
	stream.ask(Eds, nil, "server")
	if got := weights(t, stream.want(Eds, "").GetResources()); !maps.Equal(got, map[string]uint32{"d1": 1, "d2": 2}) {
		t.Errorf("endpoints: %v", got)
	}
	stream.ask(lds, nil, "*")
	stream.want(lds, "")
	stream.ask(rds, nil, envoy.IngressListener)
	stream.want(rds, "")
	set(t, s, topologytest.Of(map[string][]string{"d1": {"tag:weight-7"}, "d2": {"tag:weight-2"}}))
	if got := weights(t, stream.want(Eds, "").GetResources()); got["d1"] != 7 {
		t.Errorf("after the change: %v", got)
	}
}

func TestPublish_change_sendsOnlyWhatChanged(t *testing.T) {
	s := newServer()
	set(t, s, topologytest.Of(map[string][]string{"d1": {"tag:service-a"}, "d2": {"tag:service-b"}}))
	stream := openDelta(t, start(t, s))
	stream.ask(Eds, nil, "a", "b")
	stream.want(Eds, "")
	// Nothing changed: nothing is sent, or the next response would be this one.
	set(t, s, topologytest.Of(map[string][]string{"d1": {"tag:service-a"}, "d2": {"tag:service-b"}}))
	set(t, s, topologytest.Of(map[string][]string{"d1": {"tag:service-a"}, "d2": {"tag:service-b", "tag:weight-3"}}))
	r := stream.want(Eds, "")
	if len(r.GetResources()) != 1 || r.GetResources()[0].GetName() != "b" {
		t.Errorf("sent %v, want only b", r.GetResources())
	}
}

// An Envoy that reconnects after a restart of the control plane, or to its
// twin, is not sent again what it has.
func TestPublish_restart_keepsVersions(t *testing.T) {
	known := make(map[string]string)
	first := newServer()
	set(t, first, topologytest.OneService())
	a := openDelta(t, start(t, first))
	a.ask(Cds, nil, "*")
	for _, r := range a.want(Cds, "").GetResources() {
		known[r.GetName()] = r.GetVersion()
	}
	second := newServer()
	set(t, second, topologytest.OneService())
	b := openDelta(t, start(t, second))
	b.ask(Cds, known, "*")
	if r := b.want(Cds, ""); len(r.GetResources()) != 0 || len(r.GetRemovedResources()) != 0 {
		t.Errorf("sent again: %v, removed: %v", r.GetResources(), r.GetRemovedResources())
	}
}

func TestServer_beforeFirstPublish_refusesStreams(t *testing.T) {
	s := newServer()
	c := start(t, s)
	early := openDelta(t, c)
	if _, err := early.Recv(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "no device list yet") {
		t.Fatalf("got %v, want Unavailable and why", err)
	}
	set(t, s, topologytest.OneService())
	late := openDelta(t, c)
	late.ask(Cds, nil, "*")
	late.want(Cds, "")
}

func TestAdmit_devices_areAuthorized(t *testing.T) {
	who := func(address string, tags ...string) IdentifyFunc {
		return func(context.Context, netip.AddrPort) (Identity, error) {
			return Identity{Name: "peer", Addresses: []netip.Addr{netip.MustParseAddr(address)}, Tags: tags}, nil
		}
	}
	tests := map[string]struct {
		identify IdentifyFunc
		want     codes.Code
		reason   string
	}{
		"a device of the topology":  {who("100.64.0.1"), codes.OK, ""},
		"a drained device of it":    {who("100.64.0.2"), codes.OK, ""},
		"a device with another tag": {who("100.64.0.9", "tag:other"), codes.PermissionDenied, "tags tag:other) is no endpoint of any service"},
		"a device without tags":     {who("100.64.0.9"), codes.PermissionDenied, "tags none"},
		"a device that is allowed":  {who("100.64.0.9", "tag:other", "tag:gateway"), codes.OK, ""},
		"nobody the tailnet knows": {func(context.Context, netip.AddrPort) (Identity, error) {
			return Identity{}, fmt.Errorf("WhoIs: %w", ErrUnknownPeer)
		}, codes.PermissionDenied, "does not know who 127.0.0.1 is: WhoIs: no device of the tailnet has this address"},
		"a tailnet that can't tell": {func(context.Context, netip.AddrPort) (Identity, error) {
			return Identity{}, errors.New("it is starting")
		}, codes.Unavailable, "cannot tell who 127.0.0.1 is: it is starting"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := newServerWith(Config{Identify: test.identify, AllowTags: []string{"tag:gateway"}})
			set(t, s, topologytest.Of(map[string][]string{"d1": {"tag:weight-1"}, "d2": {"tag:weight-0"}}))
			stream := openDelta(t, start(t, s))
			stream.ask(Cds, nil, "*")
			_, err := stream.Recv()
			if status.Code(err) != test.want || (err != nil && !strings.Contains(err.Error(), test.reason)) {
				t.Errorf("got %v, want %s and %q", err, test.want, test.reason)
			}
		})
	}
}

func TestRejection_delta_isVisibleAndNotResent(t *testing.T) {
	s := newServer()
	set(t, s, topologytest.OneService())
	stream := openDelta(t, start(t, s))
	stream.ask(Eds, nil, "server")
	stream.want(Eds, "I will not have it")
	// A response sent again would come before the one that is asked for now.
	stream.ask(Cds, nil, "*")
	stream.want(Cds, "")
	all := s.Streams()
	if len(all) != 1 || all[0].Node != "node" || all[0].Types["endpoints"].Rejected != "I will not have it" {
		t.Errorf("streams: %+v", all)
	}
	if !slices.Contains(s.Counts(), Count{Type: "endpoints", Result: "nack", N: 1}) {
		t.Errorf("counts: %+v", s.Counts())
	}
	// Something new is sent, and clears the rejection once it is taken.
	set(t, s, topologytest.Of(map[string][]string{"d1": {"tag:weight-7"}}))
	stream.want(Eds, "")
	stream.ask(lds, nil, "*")
	stream.want(lds, "")
	if got := s.Streams()[0].Types["endpoints"]; got.Rejected != "" || got.Pending {
		t.Errorf("after the ACK: %+v", got)
	}
}

func TestRejection_sotw_isNotResent(t *testing.T) {
	s := newServer()
	set(t, s, topologytest.OneService())
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	stream, err := start(t, s).StreamAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(r *discovery.DiscoveryRequest) {
		t.Helper()
		r.Node = &core.Node{Id: "node"}
		if err := stream.Send(r); err != nil {
			t.Fatal(err)
		}
	}
	want := func(url string) *discovery.DiscoveryResponse {
		t.Helper()
		r, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if r.GetTypeUrl() != url {
			t.Fatalf("got a response of %s, want %s", typeName(r.GetTypeUrl()), typeName(url))
		}
		return r
	}
	for _, url := range []string{Cds, Eds} {
		var names []string
		if url == Eds {
			names = []string{"server"}
		}
		ask(&discovery.DiscoveryRequest{TypeUrl: url, ResourceNames: names})
		r := want(url)
		ask(&discovery.DiscoveryRequest{TypeUrl: url, ResourceNames: names, ResponseNonce: r.GetNonce(), ErrorDetail: &rpcstatus.Status{Message: "no"}})
	}
	ask(&discovery.DiscoveryRequest{TypeUrl: lds})
	want(lds) // and not the clusters or endpoints once more
	set(t, s, topologytest.Of(map[string][]string{"d1": {"tag:weight-7"}}))
	want(Eds)
}

// What is referred to arrives before what refers to it, and goes after it.
func TestPublish_additionsAndRemovals_areOrdered(t *testing.T) {
	small := topologytest.OneService()
	large := topologytest.Of(map[string][]string{"d1": {"tag:weight-1"}, "d2": {"tag:weight-2"}, "d3": {"tag:service-extra"}})
	from := func(before topology.Topology) (*testServer, deltaStream) {
		s := newServer()
		set(t, s, before)
		stream := openDelta(t, start(t, s))
		for url, name := range map[string]string{Cds: "*", rds: envoy.IngressListener, Eds: "*"} {
			stream.ask(url, nil, name)
			stream.want(url, "")
		}
		stream.settle()
		return s, stream
	}

	s, stream := from(small)
	set(t, s, large)
	stream.want(Eds, "")
	stream.want(Cds, "")
	stream.want(rds, "")

	s, stream = from(large)
	set(t, s, small)
	stream.want(rds, "")
	if r := stream.want(Cds, ""); !slices.Equal(r.GetRemovedResources(), []string{"extra"}) {
		t.Errorf("removed clusters: %v", r.GetRemovedResources())
	}
	if r := stream.want(Eds, ""); !slices.Contains(r.GetRemovedResources(), "extra") {
		t.Errorf("removed endpoints: %v", r.GetRemovedResources())
	}
}

func TestPublish_invalid_keepsLastGood(t *testing.T) {
	s := newServer()
	set(t, s, topologytest.OneService())
	bad := topologytest.OneService()
	bad.Services[0].Localities[0].Endpoints[0].Weight = 0
	if err := s.publish(bad, policy.Default()); err == nil {
		t.Fatal("it is published")
	}
	stream := openDelta(t, start(t, s))
	stream.ask(Eds, nil, "server")
	if got := weights(t, stream.want(Eds, "").GetResources()); got["d1"] != 1 {
		t.Errorf("endpoints: %v", got)
	}
}
