package xds

import (
	"cmp"
	"context"
	"log/slog"
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
}

// TypeState is how far an Envoy is with one type of resources.
type TypeState struct {
	// Pending is true between a response and its ACK or NACK.
	Pending bool `json:"pending"`
	// Rejected is Envoy's reason for as long as its last answer is a NACK.
	Rejected string `json:"rejected,omitempty"`
}

// Count is how often something happened. Result is "sent", "ack" or "nack" of
// a type, "asked" of one that is not served, or "refused" or "revoked" for a
// stream.
type Count struct {
	Type, Result string
	N            uint64
}

// streams is the state of the connected Envoys' streams. What they say has come through
// the [filteredStream], so it is fit for people.
type streams struct {
	types typeTable
	log   *slog.Logger

	mu      sync.Mutex
	open    map[*streamState]struct{}
	counts  map[Count]uint64 // of what is rare, keyed with N 0
	served  []messageCounts  // by type
	rollout rollout
}

// messageCounts are of one type.
type messageCounts struct{ sent, ack, nack uint64 }

func newStreams(types typeTable, log *slog.Logger) *streams {
	return &streams{types: types, log: log, open: make(map[*streamState]struct{}), counts: make(map[Count]uint64), served: make([]messageCounts, types.size())}
}

// streamState is what is known of one stream. Each message of each Envoy updates it, so
// it lies together and is found without a search.
type streamState struct {
	stream        Stream      // without its types
	types         []typeState // what it says of each
	regionKnown   bool        // the tailnet says where it is
	device        netip.Addr  // see [peerInfo.device]
	claimedRegion bool        // its region is its own claim, counted for its peer
	connection    *connection // over which it came
	handedOn      *core.Node  // the node that go-control-plane gets: its region
	rolloutState              // by what was published last
}

// typeState is a [TypeState], used from the first response or answer on.
type typeState struct {
	TypeState
	used bool
}

// callbacks are called by go-control-plane's server of one stream, of either protocol.
type callbacks struct {
	streams *streams
	state   *streamState
}

// newCallbacks begins the state of a stream.
func (s *streams) newCallbacks(delta bool) callbacks {
	return callbacks{s, &streamState{stream: Stream{Delta: delta}, types: make([]typeState, s.types.size())}}
}

// OnStreamOpen implements [sotw.Callbacks].
func (w callbacks) OnStreamOpen(ctx context.Context, _ int64, _ string) error {
	return w.streams.opened(ctx, w.state)
}

// OnStreamClosed implements [sotw.Callbacks].
func (w callbacks) OnStreamClosed(int64, *core.Node) { w.streams.closed(w.state) }

// OnStreamRequest implements [sotw.Callbacks].
func (w callbacks) OnStreamRequest(_ int64, r *discovery.DiscoveryRequest) error {
	r.Node = w.streams.answered(w.state, r.GetNode(), r.GetTypeUrl(), r.GetResponseNonce(), r.GetErrorDetail())
	return nil
}

// OnStreamResponse implements [sotw.Callbacks].
func (w callbacks) OnStreamResponse(_ context.Context, _ int64, r *discovery.DiscoveryRequest, _ *discovery.DiscoveryResponse) {
	w.streams.sent(w.state, r.GetTypeUrl())
}

// OnDeltaStreamOpen implements [delta.Callbacks].
func (w callbacks) OnDeltaStreamOpen(ctx context.Context, _ int64, _ string) error {
	return w.streams.opened(ctx, w.state)
}

// OnDeltaStreamClosed implements [delta.Callbacks].
func (w callbacks) OnDeltaStreamClosed(int64, *core.Node) { w.streams.closed(w.state) }

// OnStreamDeltaRequest implements [delta.Callbacks].
func (w callbacks) OnStreamDeltaRequest(_ int64, r *discovery.DeltaDiscoveryRequest) error {
	r.Node = w.streams.answered(w.state, r.GetNode(), r.GetTypeUrl(), r.GetResponseNonce(), r.GetErrorDetail())
	return nil
}

// OnStreamDeltaResponse implements [delta.Callbacks].
func (w callbacks) OnStreamDeltaResponse(_ int64, r *discovery.DeltaDiscoveryRequest, _ *discovery.DeltaDiscoveryResponse) {
	w.streams.sent(w.state, r.GetTypeUrl())
}

func (s *streams) opened(ctx context.Context, a *streamState) error {
	who, _ := ctx.Value(identityKey{}).(peerInfo)
	device := sanitize(who.Name)
	s.mu.Lock()
	a.stream.Device, a.stream.Address, a.stream.Region, a.stream.Since = device, who.address, who.region, time.Now()
	a.regionKnown, a.connection, a.device = who.known, who.connection, who.device()
	s.open[a] = struct{}{}
	s.mu.Unlock()
	if dropped, ok := a.connection.peerQuota().mayLog(time.Now()); ok {
		s.log.Info("stream opened", "device", device, "peer", who.address.String(), "lines_dropped", dropped)
	}
	return nil
}

func (s *streams) closed(a *streamState) {
	s.mu.Lock()
	delete(s.open, a)
	device, node, region, claimed := a.stream.Device, a.stream.Node, a.stream.Region, a.claimedRegion
	s.mu.Unlock()
	quota := a.connection.peerQuota()
	if claimed {
		quota.unclaim(region)
	}
	if dropped, ok := quota.mayLog(time.Now()); ok {
		s.log.Info("stream closed", "device", device, "node", node, "lines_dropped", dropped)
	}
}

func (s *streams) sent(a *streamState, url string) {
	of := s.types.index(url)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.served[of].sent++
	a.types[of].used, a.types[of].Pending = true, true
	s.rollout.recordSent(a)
}

// answered notes an ACK or a NACK; a request without a nonce answers nothing. It
// returns the node that is handed on in place of the request's: one a stream, with
// the region that it is known to be in, whatever it says.
func (s *streams) answered(a *streamState, node *core.Node, url, nonce string, rejected *status.Status) *core.Node {
	place, news := s.record(a, node, s.types.index(url), nonce, rejected)
	if news == nil {
		return place
	}
	// Out of the lock: nothing waits for a slow log.
	if dropped, ok := a.connection.peerQuota().mayLog(time.Now()); ok {
		s.log.Error("an Envoy rejected resources and keeps its last good ones", "device", news.Device, "node", news.Node, "type", s.types.name(s.types.index(url)), "reason", reason(rejected), "lines_dropped", dropped)
	}
	return place
}

// record records a request, and returns where its stream is, and a copy of
// the stream if that has rejected something anew.
func (s *streams) record(a *streamState, node *core.Node, of int, nonce string, rejected *status.Status) (place *core.Node, news *Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if node != nil {
		a.setNode(node)
	}
	if a.handedOn == nil {
		a.handedOn = &core.Node{Locality: &core.Locality{Region: a.stream.Region}}
	}
	if nonce == "" {
		return a.handedOn, nil
	}
	before := a.types[of]
	a.types[of] = typeState{used: true}
	if rejected == nil {
		s.served[of].ack++
	} else {
		s.served[of].nack++
		a.types[of].Rejected = reason(rejected)
		if before.Pending || before.Rejected != a.types[of].Rejected {
			copied := a.stream
			news = &copied
		}
	}
	s.rollout.recordAnswer(a, rejected != nil)
	return a.handedOn, news
}

// setNode records what an Envoy says of itself.
func (a *streamState) setNode(node *core.Node) {
	if id := node.GetId(); id != "" {
		a.stream.Node = id
		a.connection.setNode(id)
	}
	if v := node.GetUserAgentVersion(); v != "" {
		a.stream.Envoy = v
	}
	if region := a.stream.Region; a.claimRegion(node.GetLocality().GetRegion()) != region {
		a.handedOn = nil // it is elsewhere
	}
}

// awaitsAnswer reports whether an answer is awaited.
func (a *streamState) awaitsAnswer() bool {
	for i := range a.types {
		if a.types[i].Pending {
			return true
		}
	}
	return false
}

// reason is why an Envoy rejected something.
func reason(rejected *status.Status) string {
	return cmp.Or(rejected.GetMessage(), "it gave no reason")
}

// maxRegionBytes is that of a tag: the name of a region is not longer.
const maxRegionBytes = 63

// claimRegion notes the region that the node says it is in, and returns its region. Where
// the tailnet does not know better, that is what it says; but a stream stays in its
// first, and a peer can be in a few at a time only.
func (a *streamState) claimRegion(region string) string {
	if region == "" {
		return a.stream.Region // it claims nothing
	}
	if !a.regionKnown && len(region) <= maxRegionBytes && a.connection.peerQuota().claim(region) {
		a.stream.Region, a.regionKnown, a.claimedRegion = region, true, true
	}
	a.stream.Claims = ""
	if region != a.stream.Region {
		a.stream.Claims = region
	}
	return a.stream.Region
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
	for a := range s.open {
		copied := a.stream
		copied.Types = make(map[string]TypeState)
		for of, state := range a.types {
			if state.used {
				copied.Types[s.types.name(of)] = state.TypeState
			}
		}
		all = append(all, copied)
	}
	slices.SortFunc(all, func(a, b Stream) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.Node, b.Node), a.Since.Compare(b.Since))
	})
	return all
}

func (s *streams) countList() []Count {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Count, 0, len(s.counts)+3*len(s.served))
	add := func(c Count, n uint64) {
		if c.N = n; n > 0 {
			all = append(all, c)
		}
	}
	for c, n := range s.counts {
		add(c, n)
	}
	for of, n := range s.served {
		name := s.types.name(of)
		add(Count{Type: name, Result: "sent"}, n.sent)
		add(Count{Type: name, Result: "ack"}, n.ack)
		add(Count{Type: name, Result: "nack"}, n.nack)
	}
	slices.SortFunc(all, func(a, b Count) int { return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Result, b.Result)) })
	return all
}

// byRegion counts the devices with an Envoy in each region. A device may have
// several Envoys, and each may claim to be another node: it counts once a region.
func (s *streams) byRegion() map[string]int {
	type place struct {
		region string
		device netip.Addr
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	counted := make(map[place]bool)
	n := make(map[string]int)
	for a := range s.open {
		at := place{a.stream.Region, a.device}
		if at.region != "" && !counted[at] {
			counted[at] = true
			n[at.region]++
		}
	}
	return n
}
