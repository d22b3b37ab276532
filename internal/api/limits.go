package api

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// maxConnections are open from other machines in all, maxPerAddress from one of
	// them, and maxLoopback from this one, where a proxy may stand for many people.
	// A browser opens six.
	maxConnections = 512
	maxPerAddress  = 64
	maxLoopback    = 256
	// requestsPerSecond and requestBurst bound what one address may ask for: each
	// document costs the control plane milliseconds. Loopback is not bounded: who
	// is on this machine can stop the control plane anyway.
	requestsPerSecond = 20
	requestBurst      = 60
	// maxAddresses bounds how many addresses are remembered.
	maxAddresses = 4096
)

// clientLimits bounds what one address can take of a server.
type clientLimits struct {
	now func() time.Time

	mu          sync.Mutex
	connections map[net.Conn]netip.Addr // those that are open and were let in
	open        map[netip.Addr]int
	rates       map[netip.Addr]*rate.Limiter
}

func newClientLimits(now func() time.Time) *clientLimits {
	return &clientLimits{now: now, connections: make(map[net.Conn]netip.Addr), open: make(map[netip.Addr]int), rates: make(map[netip.Addr]*rate.Limiter)}
}

// connState counts connections, and closes those that are too many.
// See [http.Server.ConnState].
func (l *clientLimits) connState(c net.Conn, state http.ConnState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch state {
	case http.StateNew:
		from := addressOf(c.RemoteAddr().String())
		full := l.open[from] >= maxPerAddress || len(l.connections) >= maxConnections+maxLoopback
		if from.IsLoopback() {
			full = l.open[from] >= maxLoopback
		}
		if full {
			_ = c.Close() // its client sees it
			return
		}
		l.connections[c] = from
		l.open[from]++
	case http.StateClosed, http.StateHijacked:
		from, counted := l.connections[c]
		if !counted {
			return
		}
		delete(l.connections, c)
		if l.open[from]--; l.open[from] == 0 {
			delete(l.open, from)
		}
	}
}

// limitRate refuses the requests of an address that come too fast.
func (l *clientLimits) limitRate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if from := addressOf(r.RemoteAddr); !from.IsLoopback() && !l.allow(from) {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "too many requests from this address: slow down", http.StatusTooManyRequests)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (l *clientLimits) allow(from netip.Addr) bool {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	limiter := l.rates[from]
	if limiter == nil {
		if len(l.rates) >= maxAddresses {
			l.forget(now)
		}
		limiter = rate.NewLimiter(requestsPerSecond, requestBurst)
		l.rates[from] = limiter
	}
	return limiter.AllowN(now, 1)
}

// forget makes room: an address that asked for nothing lately starts anew as if
// it were remembered. If all did, whoever comes in may burst once more.
func (l *clientLimits) forget(now time.Time) {
	for from, limiter := range l.rates {
		if limiter.TokensAt(now) >= requestBurst {
			delete(l.rates, from)
		}
	}
	if len(l.rates) >= maxAddresses {
		clear(l.rates)
	}
}

// addressOf is the address of host:port; the zero one if there is none, as with
// a Unix socket.
func addressOf(remote string) netip.Addr {
	from, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	return from.Addr().Unmap().WithZone("")
}
