// Package peersync exchanges operators' drains, and the addresses of connected
// Envoys, between the control planes of one tailnet.
//
// Each control plane polls every other one with the version that it has. The answer
// waits for another version, so that a drain arrives at once, and the next poll
// proves that it did. Nobody can push: the peers to poll are named
// here, and [Config.Dial] decides whether the node that it reached is trusted.
package peersync

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/tailxds/tailxds/internal/drain"
)

// Path is where peers poll.
const Path = "/drains"

const (
	// maxWait is how long an answer waits for a change. A killed process closes no
	// connection, so it also bounds how late a peer notices a restart.
	maxWait     = 5 * time.Second
	pollTimeout = maxWait + 5*time.Second
	retryDelay  = time.Second
	// connectedTTL is how long the last answer of a peer counts for the Envoys that
	// were connected to it: they reconnect elsewhere within 30 s or so.
	connectedTTL = 45 * time.Second
	// changeInterval and changeBurst limit changed answers, since each costs a
	// reconcile and Envoys may come and go by the thousand.
	changeInterval = time.Second
	changeBurst    = 5
)

// Config configures an [Exchange]. All of it is required.
type Config struct {
	// Names are the other control planes: host or host:port.
	Names []string
	// Dial connects to one of them. It must fail unless the node that it reached may
	// operate this control plane.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// PeerName returns the name of the node at an address. Its first label
	// identifies one of Names.
	PeerName func(ctx context.Context, remote string) (string, error)
	// Receive is called with the records of a peer when they or the Envoys connected
	// to it changed.
	Receive func(ctx context.Context, records []drain.Record)
	Log     *slog.Logger
}

// Exchange publishes this control plane's records to its peers, and receives theirs.
type Exchange struct {
	config Config
	http   *http.Client

	mu      sync.Mutex
	own     message
	changed chan struct{} // closed when own or a peer's state changes
	peers   map[string]*State
}

// State is the state of the exchange with one peer.
type State struct {
	Name string `json:"name"`
	// LastAnswer is when it last answered.
	LastAnswer time.Time `json:"heard,omitzero"`
	// LastPoll is when it last polled; Synced reports whether it has all records of
	// this control plane.
	LastPoll time.Time `json:"asked,omitzero"`
	Synced   bool      `json:"knows"`
	// Error is why it cannot be polled now.
	Error string `json:"error,omitempty"`

	version   string // of our message, that it has
	connected []netip.Addr
}

// New returns an exchange that publishes nothing yet.
func New(c Config) *Exchange {
	e := &Exchange{
		config: c, changed: make(chan struct{}), peers: make(map[string]*State),
		// Dial decides about trust, so every poll dials.
		http: &http.Client{Transport: &http.Transport{DialContext: c.Dial, DisableKeepAlives: true}},
	}
	for _, name := range c.Names {
		e.peers[name] = &State{Name: name}
	}
	e.Publish(nil, nil)
	return e
}

// Publish replaces what peers get: operators' records, and the addresses of the
// devices whose Envoys are connected here. Both are cut to what peers accept.
func (e *Exchange) Publish(records []drain.Record, connected map[netip.Addr]bool) {
	own := message{Drains: slices.Clone(records[:min(len(records), drain.MaxRecords)])}
	for i := range own.Drains {
		own.Drains[i].MissingSince = time.Time{} // each control plane has its own list
	}
	own.Connected = slices.SortedFunc(maps.Keys(connected), netip.Addr.Compare)
	own.Connected = own.Connected[:min(len(own.Connected), maxConnected)]
	var err error
	if own.Version, err = versionOf(own.Drains, own.Connected); err != nil {
		e.config.Log.Error("cannot encode drains for other control planes", "error", err) // a time beyond the year 9999
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if own.Version != e.own.Version {
		e.own = own
		e.notify()
	}
}

// notify wakes those who wait for a change. The caller holds the lock.
func (e *Exchange) notify() {
	close(e.changed)
	e.changed = make(chan struct{})
}

// Connected returns the addresses of the devices whose Envoys are connected to a
// peer, by its last answer.
func (e *Exchange) Connected() []netip.Addr {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []netip.Addr
	for _, s := range e.peers {
		if time.Since(s.LastAnswer) < connectedTTL {
			all = append(all, s.connected...)
		}
	}
	return all
}

// States returns the peers' states, in the order of [Config.Names].
func (e *Exchange) States() []State {
	states, _ := e.watchStates()
	return states
}

// watchStates returns the peers' states, and a channel that is closed when they
// change.
func (e *Exchange) watchStates() ([]State, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	states := []State{}
	for _, name := range e.config.Names {
		s := *e.peers[name]
		s.Synced = sameDrains(s.version, e.own.Version)
		states = append(states, s)
	}
	return states, e.changed
}

// WaitSynced waits until all peers have this control plane's records, or ctx ends,
// and returns their states. It does not wait for a peer that cannot be polled.
func (e *Exchange) WaitSynced(ctx context.Context) []State {
	for {
		states, changed := e.watchStates()
		if !slices.ContainsFunc(states, func(s State) bool { return !s.Synced && s.Error == "" }) {
			return states
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return states
		}
	}
}

// ServeHTTP answers a peer's poll, once there is another version than the peer has.
// The caller authorizes the peer.
func (e *Exchange) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	version := r.URL.Query().Get("version")
	if len(version) > maxVersion {
		http.Error(w, "the version is too long", http.StatusBadRequest)
		return
	}
	if name, err := e.config.PeerName(r.Context(), r.RemoteAddr); err == nil {
		e.recordPoll(name, version)
	}
	ctx, cancel := context.WithTimeout(r.Context(), maxWait)
	defer cancel()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(e.waitForChange(ctx, version)) // a peer that went away polls again
}

// waitForChange returns what to send, once its version differs or ctx ends.
func (e *Exchange) waitForChange(ctx context.Context, version string) message {
	for {
		e.mu.Lock()
		own, changed := e.own, e.changed
		e.mu.Unlock()
		if own.Version != version || ctx.Err() != nil {
			return own
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// recordPoll records which version a peer has.
func (e *Exchange) recordPoll(name, version string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.peers {
		if firstLabel(s.Name) != firstLabel(name) {
			continue
		}
		s.LastPoll = time.Now()
		if s.version != version {
			s.version = version
			e.notify()
		}
	}
}

// firstLabel returns a host's first label in lower case, without a port.
func firstLabel(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	first, _, _ := strings.Cut(strings.ToLower(host), ".")
	return first
}

// Run polls all peers until ctx ends.
func (e *Exchange) Run(ctx context.Context) error {
	var g errgroup.Group
	for _, name := range e.config.Names {
		g.Go(func() error {
			e.pollForever(ctx, name)
			return nil
		})
	}
	return g.Wait()
}

func (e *Exchange) pollForever(ctx context.Context, name string) {
	var version string
	limit := rate.NewLimiter(rate.Every(changeInterval), changeBurst)
	for ctx.Err() == nil {
		m, err := e.poll(ctx, name, version)
		if ctx.Err() != nil {
			return
		}
		e.recordAnswer(name, m, err)
		if err != nil {
			version = "" // another process may answer next
			select {
			case <-time.After(retryDelay):
			case <-ctx.Done():
			}
			continue
		}
		if m.Version != version {
			e.config.Receive(ctx, m.Drains)
			if limit.Wait(ctx) != nil {
				return // ctx ended
			}
		}
		version = m.Version
	}
}

// recordAnswer records a peer's answer or failure, and logs when that changes.
func (e *Exchange) recordAnswer(name string, m message, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.peers[name]
	failed := s.Error != ""
	if err == nil {
		s.LastAnswer, s.Error, s.connected = time.Now(), "", m.Connected
		if failed {
			e.config.Log.Info("receiving drains from another control plane again", "peer", name)
		}
		return
	}
	s.Error = err.Error()
	if !failed {
		e.notify()
		e.config.Log.Warn("cannot receive drains from another control plane", "peer", name, "error", err)
	}
}

// poll asks a peer for what differs from a version.
func (e *Exchange) poll(ctx context.Context, name, version string) (message, error) {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	m, err := get(ctx, e.http, name, version)
	if err != nil {
		return message{}, fmt.Errorf("poll %s: %w", name, err)
	}
	return m, nil
}
