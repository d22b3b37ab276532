package xds

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/status"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// Stream is one connected Envoy, as /status shows it.
type Stream struct {
	// Device is who the tailnet says it is; Node is what it says of itself.
	Device  string         `json:"device"`
	Address netip.AddrPort `json:"address"`
	Node    string         `json:"node"`
	// Region is where the tailnet knows the device to be; without a tailnet, where
	// the node says it is. Claims is what the node says if that is another.
	Region string `json:"region,omitempty"`
	Claims string `json:"claims,omitempty"`
	// Envoy is its version, such as "1.40.0"; empty for a client that is no Envoy.
	Envoy string    `json:"envoy,omitempty"`
	Delta bool      `json:"delta"`
	Since time.Time `json:"since"`
	// Types are what it was sent and said of it, by the type's short name.
	Types map[string]TypeState `json:"types"`

	known      bool        // whether the tailnet says where it is
	connection *connection // over which it came
	place      *core.Node  // what is handed on of where it is
}

// TypeState is how far an Envoy is with one type of resources.
type TypeState struct {
	// Pending is true between a response and its ACK or NACK.
	Pending bool `json:"pending"`
	// Rejected holds Envoy's own words for as long as its last answer is a NACK.
	Rejected string `json:"rejected,omitempty"`
}

// Count is how often something happened. Result is "sent", "ack" or "nack" of
// a type, "asked" of one that is not served, or "refused" or "revoked" for a
// stream.
type Count struct {
	Type, Result string
	N            uint64
}

// streamKey tells streams apart.
type streamKey struct {
	delta bool
	id    int64
}

// streams keeps account of the connected Envoys. What they say has come through
// the [doorway], so it is fit for people.
type streams struct {
	log *slog.Logger

	mu     sync.Mutex
	last   int64 // key that was given to a stream
	open   map[streamKey]*Stream
	counts map[Count]uint64 // keyed with N 0
	reach  reach
}

func newStreams(log *slog.Logger) *streams {
	return &streams{log: log, open: make(map[streamKey]*Stream), counts: make(map[Count]uint64)}
}

// witness is what go-control-plane's server of one stream, of either protocol,
// tells of it.
type witness struct {
	of  *streams
	key streamKey
}

// witness begins the account of a stream.
func (s *streams) witness(delta bool) witness {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	return witness{s, streamKey{delta, s.last}}
}

// OnStreamOpen implements [sotw.Callbacks].
func (w witness) OnStreamOpen(ctx context.Context, _ int64, _ string) error {
	return w.of.opened(ctx, w.key)
}

// OnStreamClosed implements [sotw.Callbacks].
func (w witness) OnStreamClosed(int64, *core.Node) { w.of.closed(w.key) }

// OnStreamRequest implements [sotw.Callbacks].
func (w witness) OnStreamRequest(_ int64, r *discovery.DiscoveryRequest) error {
	r.Node = w.of.answered(w.key, r.GetNode(), r.GetTypeUrl(), r.GetResponseNonce(), r.GetErrorDetail())
	return nil
}

// OnStreamResponse implements [sotw.Callbacks].
func (w witness) OnStreamResponse(_ context.Context, _ int64, r *discovery.DiscoveryRequest, _ *discovery.DiscoveryResponse) {
	w.of.sent(w.key, r.GetTypeUrl())
}

// OnDeltaStreamOpen implements [delta.Callbacks].
func (w witness) OnDeltaStreamOpen(ctx context.Context, _ int64, _ string) error {
	return w.of.opened(ctx, w.key)
}

// OnDeltaStreamClosed implements [delta.Callbacks].
func (w witness) OnDeltaStreamClosed(int64, *core.Node) { w.of.closed(w.key) }

// OnStreamDeltaRequest implements [delta.Callbacks].
func (w witness) OnStreamDeltaRequest(_ int64, r *discovery.DeltaDiscoveryRequest) error {
	r.Node = w.of.answered(w.key, r.GetNode(), r.GetTypeUrl(), r.GetResponseNonce(), r.GetErrorDetail())
	return nil
}

// OnStreamDeltaResponse implements [delta.Callbacks].
func (w witness) OnStreamDeltaResponse(_ int64, r *discovery.DeltaDiscoveryRequest, _ *discovery.DeltaDiscoveryResponse) {
	w.of.sent(w.key, r.GetTypeUrl())
}

func (s *streams) opened(ctx context.Context, key streamKey) error {
	who, _ := ctx.Value(identityKey{}).(peerInfo)
	device := clean(who.Name)
	s.mu.Lock()
	s.open[key] = &Stream{Device: device, Address: who.address, Region: who.region, known: who.known, connection: who.connection, Delta: key.delta, Since: time.Now(), Types: make(map[string]TypeState)}
	s.mu.Unlock()
	s.log.Info("stream opened", "device", device, "peer", who.address.String())
	return nil
}

func (s *streams) closed(key streamKey) {
	s.mu.Lock()
	stream, ok := s.open[key]
	delete(s.open, key)
	delete(s.reach.told, key)
	s.mu.Unlock()
	if ok {
		s.log.Info("stream closed", "device", stream.Device, "node", stream.Node)
	}
}

func (s *streams) sent(key streamKey, url string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := typeName(url)
	s.counts[Count{Type: name, Result: "sent"}]++
	if stream, ok := s.open[key]; ok {
		state := stream.Types[name]
		state.Pending = true
		stream.Types[name] = state
		s.reach.sent(key, stream.Since)
	}
}

// answered notes an ACK or a NACK; a request without a nonce answers nothing. It
// returns the node that is handed on in place of the request's: one a stream, with
// the region that it is known to be in, whatever it says.
func (s *streams) answered(key streamKey, node *core.Node, url, nonce string, rejected *status.Status) *core.Node {
	name := typeName(url)
	place, news := s.note(key, node, name, nonce, rejected)
	if news != nil { // out of the lock: nobody waits for a slow log
		s.log.Error("an Envoy rejected resources and keeps its last good ones", "device", news.Device, "node", news.Node, "type", name, "reason", reason(rejected))
	}
	return place
}

// note keeps account of a request, and returns where its stream is, and a copy of
// the stream if that has rejected something anew.
func (s *streams) note(key streamKey, node *core.Node, name, nonce string, rejected *status.Status) (place *core.Node, news *Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	stream, ok := s.open[key]
	if !ok {
		return &core.Node{}, nil
	}
	if id := node.GetId(); id != "" {
		stream.Node = id
		stream.connection.name(id)
	}
	if node != nil {
		stream.claim(node.GetLocality().GetRegion())
		if v := node.GetUserAgentVersion(); v != "" {
			stream.Envoy = v
		}
	}
	if stream.place == nil || stream.place.GetLocality().GetRegion() != stream.Region {
		stream.place = &core.Node{Locality: &core.Locality{Region: stream.Region}}
	}
	if nonce == "" {
		return stream.place, nil
	}
	before, state, result := stream.Types[name], TypeState{}, "ack"
	if rejected != nil {
		state.Rejected, result = reason(rejected), "nack"
		if before.Pending || before.Rejected != state.Rejected {
			copied := *stream
			news = &copied
		}
	}
	stream.Types[name] = state
	s.counts[Count{Type: name, Result: result}]++
	s.reach.answered(key, rejected != nil, stream.due())
	return stream.place, news
}

// due tells whether an answer is awaited.
func (s *Stream) due() bool {
	for _, state := range s.Types {
		if state.Pending {
			return true
		}
	}
	return false
}

// reason is why an Envoy rejected something.
func reason(rejected *status.Status) string {
	return cmp.Or(rejected.GetMessage(), "it gave no reason")
}

// claim notes the region that the node says it is in. Where the tailnet does not
// know better, that is its region; but a stream stays in its first.
func (s *Stream) claim(region string) {
	if region == "" {
		return // it claims nothing
	}
	if !s.known {
		s.Region, s.known = region, true
	}
	s.Claims = ""
	if region != s.Region {
		s.Claims = region
	}
}

func (s *streams) count(typ, result string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[Count{Type: typ, Result: result}]++
}

func (s *streams) list() []Stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Stream, 0, len(s.open))
	for _, stream := range s.open {
		copied := *stream
		copied.Types = maps.Clone(stream.Types)
		all = append(all, copied)
	}
	slices.SortFunc(all, func(a, b Stream) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.Node, b.Node), a.Since.Compare(b.Since))
	})
	return all
}

func (s *streams) counted() []Count {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Count, 0, len(s.counts))
	for c, n := range s.counts {
		c.N = n
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b Count) int { return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Result, b.Result)) })
	return all
}
