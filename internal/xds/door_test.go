package xds

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

const sds = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

func TestATypeThatIsNotServedEndsNothing(t *testing.T) {
	var log bytes.Buffer
	s := NewServer(Config{DefaultService: "server", Log: slog.New(slog.NewTextHandler(&log, nil))})
	set(t, s, oneService())
	c := start(t, s)
	stream := openDelta(t, c)
	for range 3 {
		stream.ask(sds, nil, "secret")
	}
	for i := range mostUnknownTypes - 1 {
		stream.ask(fmt.Sprintf("made up %d\x1b[31m", i), nil, "x")
	}
	stream.settle() // what is served goes on
	if n := strings.Count(log.String(), sds); n != 1 {
		t.Errorf("told %d times:\n%s", n, &log)
	}
	if strings.Contains(log.String(), "\x1b") {
		t.Errorf("the log turns red:\n%s", &log)
	}
	want := Count{Type: "unknown", Result: "asked", N: mostUnknownTypes}
	if counts := s.Counts(); !slices.Contains(counts, want) || len(counts) > 4 {
		t.Errorf("counts: %+v, want %+v and no label for each", counts, want)
	}
	stream.ask("one too many", nil, "x")
	if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("ended with %v", err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	world, err := c.StreamAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{sds, cds} {
		if err := world.Send(&discovery.DiscoveryRequest{Node: &core.Node{Id: "node"}, TypeUrl: url}); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := world.Recv(); err != nil || r.GetTypeUrl() != cds {
		t.Errorf("got %v, %v", r, err)
	}
}

func TestARequestForTooMuchEndsItsStreamAlone(t *testing.T) {
	for name, names := range map[string][]string{
		"a long name":     {strings.Repeat("x", longestName+1)},
		"many names":      slices.Repeat([]string{"x"}, mostNames+1),
		"no UTF-8 at all": {"server\xff"},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewServer(Config{DefaultService: "server"})
			set(t, s, oneService())
			c := start(t, s)
			good, bad := openDelta(t, c), openDelta(t, c)
			good.ask(eds, nil, "server")
			good.want(eds, "")
			// The client's own library may refuse to send it.
			if err := bad.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: eds, ResourceNamesSubscribe: names}); err == nil {
				if _, err := bad.Recv(); err == nil {
					t.Error("it was taken")
				}
			}
			set(t, s, topologyOf(map[string][]string{"d1": {"tag:weight-5"}}))
			if got := weights(t, good.want(eds, "").GetResources()); got["d1"] != 5 {
				t.Errorf("others notice: %v", got)
			}
		})
	}
}

// A device whose name is no text must not keep others from their endpoints.
func TestADeviceNameThatIsNoText(t *testing.T) {
	top := oneService()
	top.Services[0].Localities[0].Endpoints[0].Name = "d1\xff\xfe"
	s := NewServer(Config{DefaultService: "server"})
	set(t, s, top)
	stream := openDelta(t, start(t, s))
	stream.ask(eds, nil, "server")
	if got := weights(t, stream.want(eds, "").GetResources()); len(got) != 2 || got["d2"] != 2 {
		t.Errorf("got %v", got)
	}
}

// One change to all types reaches a state-of-the-world client in the order in
// which it needs them.
func TestStateOfTheWorldIsOrdered(t *testing.T) {
	for range 20 {
		s := NewServer(Config{DefaultService: "server"})
		set(t, s, oneService())
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		stream, err := start(t, s).StreamAggregatedResources(ctx)
		if err != nil {
			t.Fatal(err)
		}
		ask := func(url, version, nonce string, names ...string) {
			t.Helper()
			if err := stream.Send(&discovery.DiscoveryRequest{
				Node: &core.Node{Id: "node"}, TypeUrl: url, VersionInfo: version, ResponseNonce: nonce, ResourceNames: names,
			}); err != nil {
				t.Fatal(err)
			}
		}
		names := map[string][]string{eds: {"server", "new"}, rds: {Ingress}}
		for _, url := range []string{lds, rds, cds, eds} {
			ask(url, "", "", names[url]...)
			r, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			ask(url, r.GetVersionInfo(), r.GetNonce(), names[url]...)
		}
		for s.pending() {
			time.Sleep(time.Millisecond) // the ACKs are on their way
		}
		set(t, s, topologyOf(map[string][]string{"d1": {"tag:weight-1"}, "d2": {"tag:service-new"}}))
		var order []string
		for len(order) < 3 {
			r, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			order = append(order, typeName(r.GetTypeUrl()))
		}
		cancel()
		if got := strings.Join(order, " "); got != "endpoints clusters routes" {
			t.Fatalf("they came as %s", got)
		}
	}
}

// pending tells whether a response has not been answered yet.
func (s *Server) pending() bool {
	for _, stream := range s.Streams() {
		for _, state := range stream.Types {
			if state.Pending {
				return true
			}
		}
	}
	return false
}

func TestTextFromEnvoysIsFitForATerminal(t *testing.T) {
	var log bytes.Buffer
	s := NewServer(Config{DefaultService: "server", Log: slog.New(slog.NewTextHandler(&log, nil))})
	set(t, s, oneService())
	stream := openDelta(t, start(t, s))
	stream.send(&discovery.DeltaDiscoveryRequest{Node: &core.Node{Id: "west\x1b[2J\u202e-1"}, TypeUrl: eds, ResourceNamesSubscribe: []string{"server"}})
	stream.want(eds, "no\x1b]0;title\x07\nway")
	stream.send(&discovery.DeltaDiscoveryRequest{TypeUrl: lds, ResourceNamesSubscribe: []string{Ingress}})
	stream.want(lds, "")
	got := s.Streams()[0]
	if got.Node != "west?[2J?-1" || got.Types["endpoints"].Rejected != "no?]0;title? way" {
		t.Errorf("got %q, %q", got.Node, got.Types["endpoints"].Rejected)
	}
	if strings.ContainsAny(log.String(), "\x1b\x07\u202e") {
		t.Errorf("the log: %q", &log)
	}
	if got := clean(strings.Repeat("ä", longestText)); len(got) > longestText+len("…") || !strings.HasSuffix(got, "ä…") {
		t.Errorf("a long text has %d bytes", len(got))
	}
}

func TestARefusedPeerIsToldNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := newRefusals(slog.New(slog.NewTextHandler(&log, nil)))
		peer := netip.MustParseAddrPort("100.64.0.9:1")
		for i := range 1_200 { // each five seconds, from another port each
			r.tell(time.Now(), netip.AddrPortFrom(peer.Addr(), uint16(i+1)), "d9", "no endpoint")
			time.Sleep(5 * time.Second)
		}
		if n := strings.Count(log.String(), "stream refused"); n != 100 {
			t.Errorf("told %d times in 100 minutes", n)
		}
		if n := strings.Count(log.String(), "more_since_last_told=11"); n != 99 {
			t.Errorf("the others are counted %d times:\n%.2000s", n, &log)
		}
		r.tell(time.Now(), peer, "d9", "another reason")
		if !strings.Contains(log.String(), "another reason") {
			t.Error("another reason is not told at once")
		}
		for i := range 3 * mostRefusals {
			r.tell(time.Now(), peer, "d9", fmt.Sprint(i))
		}
		if len(r.told) > mostRefusals {
			t.Errorf("%d refusals are remembered", len(r.told))
		}
	})
}
