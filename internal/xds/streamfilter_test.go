package xds

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/tailxds/tailxds/internal/policy"

	"github.com/tailxds/tailxds/internal/envoy"
	"github.com/tailxds/tailxds/internal/topology/topologytest"
)

const sds = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

// A type that is not served gets no answer, and the types that are served go on,
// whatever number of others a stream asks for.
func TestStreamFilter_unknownType_endsNothing(t *testing.T) {
	const made = 1_000
	t.Run("delta", func(t *testing.T) {
		s, log := logged()
		stream := openDelta(t, start(t, s))
		stream.ask(sds, nil, "secret")
		for i := range made - 1 {
			stream.send(&discovery.DeltaDiscoveryRequest{TypeUrl: fmt.Sprintf("made up %d\x1b[31m", i), ResourceNamesSubscribe: []string{"x"}})
		}
		stream.send(&discovery.DeltaDiscoveryRequest{TypeUrl: lds}) // and names no node any more
		stream.want(lds, "")
		wantUnserved(t, s, log, made)
	})
	t.Run("state of the world", func(t *testing.T) {
		s, log := logged()
		stream := openWorld(t, start(t, s))
		stream.ask(sds)
		for i := range made - 1 {
			stream.ask(fmt.Sprintf("made up %d\x1b[31m", i))
		}
		stream.ask(Cds)
		stream.want(Cds)
		wantUnserved(t, s, log, made)
	})
}

// wantUnserved checks what was told and counted of types that are not served.
func wantUnserved(t *testing.T, s *testServer, log *lockedBuffer, asked uint64) {
	t.Helper()
	if n := strings.Count(log.String(), "not served"); n != 1 || !strings.Contains(log.String(), "node=node type="+sds) {
		t.Errorf("told %d times:\n%.2000s", n, log)
	}
	counts := s.Counts()
	if !slices.Contains(counts, Count{Type: "unknown", Result: "asked", N: asked}) || len(counts) > 4 {
		t.Errorf("counts: %+v, want %d of unknown, and no label for each", counts, asked)
	}
	if all := s.Streams(); len(all) != 1 || all[0].Node != "node" {
		t.Errorf("streams: %+v", all)
	}
}

// bytesCodec sends what the client's own library would refuse to send.
type bytesCodec struct{ encoding.CodecV2 }

func (c bytesCodec) Marshal(v any) (mem.BufferSlice, error) {
	if raw, ok := v.([]byte); ok {
		return mem.BufferSlice{mem.SliceBuffer(raw)}, nil
	}
	return c.CodecV2.Marshal(v)
}

func TestStreamFilter_refusedRequest_endsItsStreamOnly(t *testing.T) {
	marshal := func(m proto.Message) []byte {
		raw, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	field := func(to []byte, number protowire.Number, value string) []byte {
		return protowire.AppendString(protowire.AppendTag(to, number, protowire.BytesType), value)
	}
	var versions, worldNames []string
	for i := range maxNames + 1 {
		versions = append(versions, fmt.Sprint(i))
	}
	worldNames = versions
	known := make(map[string]string)
	for _, name := range versions {
		known[name] = "1"
	}
	long := strings.Repeat("x", maxNameBytes+1)
	deltaOf := func(r *discovery.DeltaDiscoveryRequest) []byte { r.TypeUrl = Eds; return marshal(r) }
	tests := map[string]struct {
		delta, world []byte
		code         codes.Code
		reason       string
	}{
		"a name that is no UTF-8": {
			field(marshal(&discovery.DeltaDiscoveryRequest{TypeUrl: Eds}), 3, "server\xff"),
			field(marshal(&discovery.DiscoveryRequest{TypeUrl: Eds}), 3, "server\xff"), codes.InvalidArgument, "invalid UTF-8",
		},
		"no message at all": {[]byte("\xff\xff\xff"), []byte("hello"), codes.InvalidArgument, "a request can't be read"},
		"a long name": {
			deltaOf(&discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{long}}),
			marshal(&discovery.DiscoveryRequest{TypeUrl: Eds, ResourceNames: []string{long}}), codes.InvalidArgument, "513 bytes is longer than 512",
		},
		"many names": {
			deltaOf(&discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: worldNames}),
			marshal(&discovery.DiscoveryRequest{TypeUrl: Eds, ResourceNames: worldNames}), codes.InvalidArgument, "10001 resource names in one request",
		},
		"many names given back": {delta: deltaOf(&discovery.DeltaDiscoveryRequest{ResourceNamesUnsubscribe: versions}), code: codes.InvalidArgument, reason: "10001 resource names"},
		"many names known":      {delta: deltaOf(&discovery.DeltaDiscoveryRequest{InitialResourceVersions: known}), code: codes.InvalidArgument, reason: "10001 resource names"},
		"a long version known": {
			delta: deltaOf(&discovery.DeltaDiscoveryRequest{InitialResourceVersions: map[string]string{"server": long}}), code: codes.InvalidArgument, reason: "longer than 512",
		},
		"no type": {marshal(&discovery.DeltaDiscoveryRequest{}), marshal(&discovery.DiscoveryRequest{}), codes.InvalidArgument, "needs a type URL"},
		"more bytes than are read": {
			deltaOf(&discovery.DeltaDiscoveryRequest{ResponseNonce: strings.Repeat("x", maxRequestBytes)}),
			marshal(&discovery.DiscoveryRequest{TypeUrl: Eds, VersionInfo: strings.Repeat("x", maxRequestBytes)}), codes.ResourceExhausted, "is larger than 1048576",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s, log := logged()
			c := start(t, s)
			good := openDelta(t, c)
			good.ask(Eds, nil, "server")
			good.want(Eds, "")
			raw := grpc.ForceCodecV2(bytesCodec{encoding.GetCodecV2(protocodec.Name)})
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			refused := uint64(0)
			for method, bytes := range map[string][]byte{"delta": test.delta, "world": test.world} {
				if bytes == nil {
					continue
				}
				var stream grpc.ClientStream
				var err error
				if method == "delta" {
					stream, err = c.DeltaAggregatedResources(ctx, raw)
				} else {
					stream, err = c.StreamAggregatedResources(ctx, raw)
				}
				if err == nil {
					err = stream.SendMsg(bytes)
				}
				if err != nil {
					t.Fatal(err)
				}
				err = stream.RecvMsg(&discovery.DiscoveryResponse{})
				if status.Code(err) != test.code || !strings.Contains(status.Convert(err).Message(), test.reason) {
					t.Errorf("%s ended with %v, want %s and %q", method, err, test.code, test.reason)
				}
				refused++
			}
			if n := strings.Count(log.String(), "stream refused"); n != 1 || !strings.Contains(log.String(), test.reason) {
				t.Errorf("told %d times, want once and %q:\n%s", n, test.reason, log)
			}
			if !slices.Contains(s.Counts(), Count{Result: "refused", N: refused}) {
				t.Errorf("counts: %+v", s.Counts())
			}
			set(t, s, topologytest.Of(map[string][]string{"d1": {"tag:weight-5"}}))
			if got := weights(t, good.want(Eds, "").GetResources()); got["d1"] != 5 {
				t.Errorf("others notice: %v", got)
			}
		})
	}
}

// The names of all requests of a stream are kept, so they are bounded together.
func TestStreamFilter_names_areBounded(t *testing.T) {
	s, _ := logged()
	stream := openDelta(t, start(t, s))
	for i := range 3 {
		var names []string
		for j := range maxNames / 2 {
			names = append(names, fmt.Sprint(i, "-", j))
		}
		stream.ask(Eds, nil, names...)
	}
	var err error
	for err == nil { // it is told first that there are none of the names
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "15000 resource names of one type in one stream") {
		t.Errorf("ended with %v", err)
	}
}

// What can't be sent is not published: a cache that takes it fails every stream.
func TestPublish_tooLarge_isRefused(t *testing.T) {
	s, _ := logged()
	c := start(t, s)
	stream := openDelta(t, c)
	stream.ask(Cds, nil, "*")
	stream.want(Cds, "")
	bad := topologytest.OneService()
	bad.Services[0].Localities[0].Region = "west\xff"
	if err := s.publish(bad, policy.Default()); err == nil || !strings.Contains(err.Error(), "last good resources stay") || !strings.Contains(err.Error(), "endpoints \"server") {
		t.Fatalf("got %v, want an error that names the assignment", err)
	}
	ends := openDelta(t, c)
	ends.ask(Eds, nil, "server")
	if got := weights(t, ends.want(Eds, "").GetResources()); len(got) != 2 {
		t.Errorf("endpoints: %v", got)
	}
	stream.settle() // it goes on, and is sent nothing
	set(t, s, topologytest.Of(map[string][]string{"d1": {"tag:service-other"}}))
	stream.want(Cds, "")
}

// A device whose name is no text must not keep others from their endpoints.
func TestStreamFilter_invalidUTF8Name_isCleaned(t *testing.T) {
	top := topologytest.OneService()
	top.Services[0].Localities[0].Endpoints[0].Name = "d1\xff\xfe"
	s := newServer()
	set(t, s, top)
	stream := openDelta(t, start(t, s))
	stream.ask(Eds, nil, "server")
	if got := weights(t, stream.want(Eds, "").GetResources()); len(got) != 2 || got["d2"] != 2 {
		t.Errorf("got %v", got)
	}
}

func TestStreamFilter_textFromEnvoys_isPrintable(t *testing.T) {
	s, log := logged()
	stream := openDelta(t, start(t, s))
	stream.send(&discovery.DeltaDiscoveryRequest{Node: &core.Node{Id: "west\x1b[2J\u202e-1"}, TypeUrl: Eds, ResourceNamesSubscribe: []string{"server"}})
	stream.want(Eds, "no\x1b]0;title\x07\nway")
	stream.send(&discovery.DeltaDiscoveryRequest{TypeUrl: lds, ResourceNamesSubscribe: []string{envoy.IngressListener}})
	stream.want(lds, "")
	got := s.Streams()[0]
	if got.Node != "west?[2J?-1" || got.Types["endpoints"].Rejected != "no?]0;title? way" {
		t.Errorf("got %q, %q", got.Node, got.Types["endpoints"].Rejected)
	}
	if strings.ContainsAny(log.String(), "\x1b\x07\u202e") {
		t.Errorf("the log: %q", log)
	}
	if got := sanitize(strings.Repeat("ä", maxTextBytes)); len(got) > maxTextBytes+len("…") || !strings.HasSuffix(got, "ä…") {
		t.Errorf("a long text has %d bytes", len(got))
	}
}

// An Envoy that says no to the same thing for ever is told of once.
func TestRejection_repeated_isLoggedOnce(t *testing.T) {
	s, log := logged()
	stream := openDelta(t, start(t, s))
	stream.ask(Eds, nil, "server")
	nonce := stream.want(Eds, "no").GetNonce()
	for range 50 {
		stream.send(&discovery.DeltaDiscoveryRequest{TypeUrl: Eds, ResponseNonce: nonce, ErrorDetail: &rpcstatus.Status{Message: "no"}})
	}
	stream.settle()
	if n := strings.Count(log.String(), "reason=no"); n != 1 {
		t.Errorf("told %d times:\n%s", n, log)
	}
	set(t, s, topologytest.Of(map[string][]string{"d1": {"tag:weight-7"}}))
	stream.want(Eds, "no")
	stream.ask(rds, nil, envoy.IngressListener)
	stream.want(rds, "")
	if n := strings.Count(log.String(), "reason=no"); n != 2 {
		t.Errorf("another one is told %d times in all:\n%s", n, log)
	}
	if !slices.Contains(s.Counts(), Count{Type: "endpoints", Result: "nack", N: 52}) {
		t.Errorf("counts: %+v", s.Counts())
	}
}
