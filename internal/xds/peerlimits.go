package xds

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// PeerLimits bound what one peer may use of the control plane, so that none can
// exhaust or slow it for the others. A peer is an address: behind a subnet router
// that translates addresses, several Envoys share it. A field that is 0 stands for
// its value in [DefaultPeerLimits].
type PeerLimits struct {
	// Connections a peer may have open.
	Connections int
	// Streams a peer may have open, over all its connections; a report is one
	// while it is read.
	Streams int
	// Names of resources that a peer may be subscribed to, over all its streams.
	Names int
	// Calls that a peer may begin a second. A peer that begins more is cut off.
	Calls int
	// Bytes of messages that are read a second, each message with messageCost
	// besides. A peer that sends more waits.
	Bytes int
}

// DefaultPeerLimits returns the limits of a server in production. An Envoy opens one
// connection and one stream, sends a report every 5 s or so, and subscribes to one
// or two names a service. So there is room for some dozens of Envoys behind one
// address, and for all of them to come back at once.
func DefaultPeerLimits() PeerLimits {
	return PeerLimits{Connections: 100, Streams: 100, Names: 30_000, Calls: 50, Bytes: 2 << 20}
}

func (l PeerLimits) withDefaults() PeerLimits {
	fill := func(field *int, value int) {
		if *field == 0 {
			*field = value
		}
	}
	d := DefaultPeerLimits()
	fill(&l.Connections, d.Connections)
	fill(&l.Streams, d.Streams)
	fill(&l.Names, d.Names)
	fill(&l.Calls, d.Calls)
	fill(&l.Bytes, d.Bytes)
	return l
}

const (
	// burstSeconds is how many seconds' worth of calls and bytes may come at once: a
	// peer's Envoys may all connect again in the same moment. The largest message
	// must fit.
	burstSeconds = 5
	// messageCost is what a message costs in time besides its bytes, in bytes: a small
	// one takes some 50 µs, in which a large one is read at 100 MB/s.
	messageCost = 4 << 10
	// maxUnread is how many bytes a peer may have sent of messages that are not
	// complete. unreadPerSecond is what is not counted, for it is of no message: the
	// frames of HTTP/2 around them.
	maxUnread       = 16 << 20
	unreadPerSecond = 32 << 10
	// connectionIdle is how long a connection may be open without a stream, and
	// handshakeTime how long it may take to become one of HTTP/2. An Envoy that is
	// refused comes again within 30 s, and may as well connect anew.
	connectionIdle = time.Minute
	handshakeTime  = 5 * time.Second
	// maxHeaderBytes of a call: Envoys and gRPC clients send some 300.
	maxHeaderBytes = 16 << 10
	// windowBytes of a stream are received before its handler reads, the least that
	// gRPC has.
	windowBytes = 64 << 10
	// readBufferBytes of each connection. gRPC's own are 32 KiB, most of what a
	// connection costs.
	readBufferBytes = 4 << 10
	// maxRegions is how many regions a peer may claim to be in at a time, where the
	// tailnet does not say. Each may cost a view of the assignments.
	maxRegions = 8
	// maxReports is how many reports of a peer are read at a time, and reportTime
	// how long one may take to arrive.
	maxReports = 4
	reportTime = 30 * time.Second
	// Log lines about a peer: logBurst at once, and then one every logEvery. What
	// is not logged is counted in the next line.
	logBurst = 30
	logEvery = 10 * time.Second
	// quotaIdle is how long a peer's quota is kept after its last connection, so
	// that connecting again does not refill it. By then it is full.
	quotaIdle = 10 * time.Minute
)

// quotas are the quotas of all peers, by address.
type quotas struct {
	limits PeerLimits

	mu    sync.Mutex
	of    map[netip.Addr]*quota
	swept time.Time
}

func newQuotas(l PeerLimits) *quotas {
	return &quotas{limits: l.withDefaults(), of: make(map[netip.Addr]*quota)}
}

// connect counts a new connection, and returns the quota that it uses; nil if the
// peer has too many, or opens them too fast.
func (q *quotas) connect(from net.Addr, now time.Time) *quota {
	var address netip.Addr // the zero one stands for all that have no IP address
	if at, err := netip.ParseAddrPort(from.String()); err == nil {
		address = at.Addr().Unmap()
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sweep(now)
	of := q.of[address]
	if of == nil {
		of = newQuota(q.limits)
		q.of[address] = of
	}
	if of.connections >= q.limits.Connections || !of.accepts.AllowN(now, 1) {
		return nil
	}
	of.connections++
	return of
}

func (q *quotas) disconnect(of *quota, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	of.connections--
	of.left = now
}

// sweep forgets peers that were not here for long, now and then.
func (q *quotas) sweep(now time.Time) {
	if now.Sub(q.swept) < quotaIdle {
		return
	}
	q.swept = now
	for address, of := range q.of {
		if of.connections == 0 && now.Sub(of.left) >= quotaIdle {
			delete(q.of, address)
		}
	}
}

// quota is what one peer uses. A nil one, of a stream without a connection, has no
// bounds.
type quota struct {
	limits PeerLimits

	// Of [quotas], under its mu.
	connections int
	left        time.Time // when the last connection ended
	accepts     *rate.Limiter

	calls, bytes, lines *rate.Limiter
	// reports is room for those that are read at a time.
	reports chan struct{}
	// decode is held while a message is decoded: one at a time, since a decoded
	// message can be many times as large as its bytes.
	decode sync.Mutex

	mu       sync.Mutex
	streams  int
	names    int
	unread   float64 // bytes, as of unreadAt
	unreadAt time.Time
	regions  map[string]int // claims of each
	dropped  int            // lines that were not logged since the last
}

func newQuota(l PeerLimits) *quota {
	return &quota{
		limits:  l,
		accepts: rate.NewLimiter(rate.Limit(l.Calls), l.Calls*burstSeconds),
		calls:   rate.NewLimiter(rate.Limit(l.Calls), l.Calls*burstSeconds),
		bytes:   rate.NewLimiter(rate.Limit(l.Bytes), max(l.Bytes*burstSeconds, maxMessageBytes+messageCost)),
		lines:   rate.NewLimiter(rate.Every(logEvery), logBurst),
		reports: make(chan struct{}, maxReports),
		regions: make(map[string]int),
	}
}

// open counts a new stream. The error is of a peer that has too many.
func (q *quota) open() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.streams >= q.limits.Streams {
		return fmt.Errorf("%d streams of one peer are open, and no more are allowed", q.streams)
	}
	q.streams++
	return nil
}

func (q *quota) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.streams--
}

// received counts bytes from the network, and reports whether the peer may send more.
func (q *quota) received(n int, now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.unread = max(0, q.unread-unreadPerSecond*now.Sub(q.unreadAt).Seconds()) + float64(n)
	q.unreadAt = now
	return q.unread <= maxUnread
}

// read counts the bytes of a message that is complete.
func (q *quota) read(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.unread = max(0, q.unread-float64(n))
}

// subscribe counts names more, or fewer if n is negative. The error is of a peer
// that has too many then.
func (q *quota) subscribe(n int) error {
	if q == nil {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.names += n
	if n > 0 && q.names > q.limits.Names {
		return fmt.Errorf("%d resource names in all streams of one peer are more than %d", q.names, q.limits.Names)
	}
	return nil
}

// claim counts a stream that says it is in a region, and reports whether the peer may
// be there, too.
func (q *quota) claim(region string) bool {
	if q == nil {
		return true
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.regions[region] == 0 && len(q.regions) >= maxRegions {
		return false
	}
	q.regions[region]++
	return true
}

// unclaim takes back a claim.
func (q *quota) unclaim(region string) {
	if q == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.regions[region]--; q.regions[region] <= 0 {
		delete(q.regions, region)
	}
}

// mayLog reports whether a line about the peer may be logged now, and how many were
// not since the last.
func (q *quota) mayLog(now time.Time) (dropped int, ok bool) {
	if q == nil {
		return 0, true
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.lines.AllowN(now, 1) {
		q.dropped = min(q.dropped+1, math.MaxInt32)
		return 0, false
	}
	dropped, q.dropped = q.dropped, 0
	return dropped, true
}

// connectionRefused counts and logs that a peer has too many connections.
func (s *Server) connectionRefused(from net.Addr) {
	s.streams.count("", "refused")
	if at, err := netip.ParseAddrPort(from.String()); err == nil {
		s.refused.logRefusal(time.Now(), netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), "", "too many connections of one peer, or too many a second")
	}
}

// boundedListener closes connections of peers that have too many.
type boundedListener struct {
	net.Listener
	quotas *quotas
	// closed is called for each connection that was not accepted.
	closed func(from net.Addr)
}

// Accept implements [net.Listener].
func (l boundedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if of := l.quotas.connect(c.RemoteAddr(), time.Now()); of != nil {
			return &boundedConn{Conn: c, quotas: l.quotas, quota: of}, nil
		}
		l.closed(c.RemoteAddr())
		_ = c.Close() // its peer gets to know by that
	}
}

// boundedConn is a connection that counts for its peer until it is closed.
type boundedConn struct {
	net.Conn
	quotas *quotas
	quota  *quota
	once   sync.Once
}

// Read implements [net.Conn]. It ends the connection of a peer that begins
// messages without an end.
func (c *boundedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && !c.quota.received(n, time.Now()) {
		return n, errUnread
	}
	return n, err
}

var errUnread = fmt.Errorf("more than %d bytes of messages are not complete", maxUnread)

// Close implements [net.Conn].
func (c *boundedConn) Close() error {
	c.once.Do(func() { c.quotas.disconnect(c.quota, time.Now()) })
	return c.Conn.Close()
}
