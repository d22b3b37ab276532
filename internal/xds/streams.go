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

// streams keeps account of the connected Envoys. What they say has come through
// the [doorway], so it is fit for people.
type streams struct {
	types typeTable
	log   *slog.Logger

	mu     sync.Mutex
	open   map[*account]struct{}
	counts map[Count]uint64 // of what is rare, keyed with N 0
	served []messageCounts  // by type
	reach  reach
}

// messageCounts are of one type.
type messageCounts struct{ sent, ack, nack uint64 }

func newStreams(types typeTable, log *slog.Logger) *streams {
	return &streams{types: types, log: log, open: make(map[*account]struct{}), counts: make(map[Count]uint64), served: make([]messageCounts, types.size())}
}

// account is that of one stream. There is something to note with each message of
// each Envoy, so it lies together and is found without a search.
type account struct {
	stream     Stream      // without its types
	types      []typeState // what it says of each
	known      bool        // whether the tailnet says where it is
	device     netip.Addr  // see [peerInfo.device]
	claimed    bool        // its region is its own claim, counted for its peer
	connection *connection // over which it came
	place      *core.Node  // what is handed on of where it is
	reached                // by what was published last
}

// typeState is a [TypeState]; it is there from the first response or answer on.
type typeState struct {
	TypeState
	there bool
}

// witness is what go-control-plane's server of one stream, of either protocol,
// tells of it.
type witness struct {
	of *streams
	on *account
}

// witness begins the account of a stream.
func (s *streams) witness(delta bool) witness {
	return witness{s, &account{stream: Stream{Delta: delta}, types: make([]typeState, s.types.size())}}
}

// OnStreamOpen implements [sotw.Callbacks].
func (w witness) OnStreamOpen(ctx context.Context, _ int64, _ string) error {
	return w.of.opened(ctx, w.on)
}

// OnStreamClosed implements [sotw.Callbacks].
func (w witness) OnStreamClosed(int64, *core.Node) { w.of.closed(w.on) }

// OnStreamRequest implements [sotw.Callbacks].
func (w witness) OnStreamRequest(_ int64, r *discovery.DiscoveryRequest) error {
	r.Node = w.of.answered(w.on, r.GetNode(), r.GetTypeUrl(), r.GetResponseNonce(), r.GetErrorDetail())
	return nil
}

// OnStreamResponse implements [sotw.Callbacks].
func (w witness) OnStreamResponse(_ context.Context, _ int64, r *discovery.DiscoveryRequest, _ *discovery.DiscoveryResponse) {
	w.of.sent(w.on, r.GetTypeUrl())
}

// OnDeltaStreamOpen implements [delta.Callbacks].
func (w witness) OnDeltaStreamOpen(ctx context.Context, _ int64, _ string) error {
	return w.of.opened(ctx, w.on)
}

// OnDeltaStreamClosed implements [delta.Callbacks].
func (w witness) OnDeltaStreamClosed(int64, *core.Node) { w.of.closed(w.on) }

// OnStreamDeltaRequest implements [delta.Callbacks].
func (w witness) OnStreamDeltaRequest(_ int64, r *discovery.DeltaDiscoveryRequest) error {
	r.Node = w.of.answered(w.on, r.GetNode(), r.GetTypeUrl(), r.GetResponseNonce(), r.GetErrorDetail())
	return nil
}

// OnStreamDeltaResponse implements [delta.Callbacks].
func (w witness) OnStreamDeltaResponse(_ int64, r *discovery.DeltaDiscoveryRequest, _ *discovery.DeltaDiscoveryResponse) {
	w.of.sent(w.on, r.GetTypeUrl())
}

func (s *streams) opened(ctx context.Context, a *account) error {
	who, _ := ctx.Value(identityKey{}).(peerInfo)
	device := clean(who.Name)
	s.mu.Lock()
	a.stream.Device, a.stream.Address, a.stream.Region, a.stream.Since = device, who.address, who.region, time.Now()
	a.known, a.connection, a.device = who.known, who.connection, who.device()
	s.open[a] = struct{}{}
	s.mu.Unlock()
	if dropped, ok := a.connection.peerQuota().mayLog(time.Now()); ok {
		s.log.Info("stream opened", "device", device, "peer", who.address.String(), "lines_dropped", dropped)
	}
	return nil
}

func (s *streams) closed(a *account) {
	s.mu.Lock()
	delete(s.open, a)
	device, node, region, claimed := a.stream.Device, a.stream.Node, a.stream.Region, a.claimed
	s.mu.Unlock()
	quota := a.connection.peerQuota()
	if claimed {
		quota.unclaim(region)
	}
	if dropped, ok := quota.mayLog(time.Now()); ok {
		s.log.Info("stream closed", "device", device, "node", node, "lines_dropped", dropped)
	}
}

func (s *streams) sent(a *account, url string) {
	of := s.types.index(url)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.served[of].sent++
	a.types[of].there, a.types[of].Pending = true, true
	s.reach.sent(a)
}

// answered notes an ACK or a NACK; a request without a nonce answers nothing. It
// returns the node that is handed on in place of the request's: one a stream, with
// the region that it is known to be in, whatever it says.
func (s *streams) answered(a *account, node *core.Node, url, nonce string, rejected *status.Status) *core.Node {
	place, news := s.note(a, node, s.types.index(url), nonce, rejected)
	if news == nil {
		return place
	}
	// Out of the lock: nothing waits for a slow log.
	if dropped, ok := a.connection.peerQuota().mayLog(time.Now()); ok {
		s.log.Error("an Envoy rejected resources and keeps its last good ones", "device", news.Device, "node", news.Node, "type", s.types.name(s.types.index(url)), "reason", reason(rejected), "lines_dropped", dropped)
	}
	return place
}

// note keeps account of a request, and returns where its stream is, and a copy of
// the stream if that has rejected something anew.
func (s *streams) note(a *account, node *core.Node, of int, nonce string, rejected *status.Status) (place *core.Node, news *Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if node != nil {
		a.introduced(node)
	}
	if a.place == nil {
		a.place = &core.Node{Locality: &core.Locality{Region: a.stream.Region}}
	}
	if nonce == "" {
		return a.place, nil
	}
	before := a.types[of]
	a.types[of] = typeState{there: true}
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
	s.reach.answered(a, rejected != nil)
	return a.place, news
}

// introduced takes what an Envoy says of itself.
func (a *account) introduced(node *core.Node) {
	if id := node.GetId(); id != "" {
		a.stream.Node = id
		a.connection.name(id)
	}
	if v := node.GetUserAgentVersion(); v != "" {
		a.stream.Envoy = v
	}
	if region := a.stream.Region; a.claim(node.GetLocality().GetRegion()) != region {
		a.place = nil // it is elsewhere
	}
}

// due tells whether an answer is awaited.
func (a *account) due() bool {
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

// longestRegion is that of a tag: the name of a region is not longer.
const longestRegion = 63

// claim notes the region that the node says it is in, and returns its region. Where
// the tailnet does not know better, that is what it says; but a stream stays in its
// first, and a peer can be in a few at a time only.
func (a *account) claim(region string) string {
	if region == "" {
		return a.stream.Region // it claims nothing
	}
	if !a.known && len(region) <= longestRegion && a.connection.peerQuota().claim(region) {
		a.stream.Region, a.known, a.claimed = region, true, true
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
			if state.there {
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

func (s *streams) counted() []Count {
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
