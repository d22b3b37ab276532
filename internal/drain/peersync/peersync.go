// Package peersync lets control planes of one tailnet know what operators said to
// any of them, and whose Envoys are connected to any of them.
//
// Each asks each other for its words, and again as soon as it has an answer; the
// answer waits until there is something new. So a word travels at once, one that
// could not be told is told as soon as that is possible, and what asks anew with
// the version that it has proves that it knows it. Nobody can push a word: who is
// asked is named here, and whether to believe it is decided by the connection.
package peersync

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/tailxds/tailxds/internal/drain"
	"github.com/tailxds/tailxds/internal/yamldoc"
)

// Path is where words are asked for.
const Path = "/words"

const (
	// patience is how long an answer waits for something new, and askWithin how
	// long a question may take. One that is killed says no good-bye, so this is also
	// how long nothing is heard of the one that starts in its place.
	patience  = 5 * time.Second
	askWithin = patience + 5*time.Second
	// again is how soon one that could not be asked is asked again.
	again = time.Second
	// believedFor is how long it counts who was connected to one that can't be
	// asked any more: they are on their way to another, and try up to every 30 s.
	believedFor = 45 * time.Second
	// maxBytes and maxConnected are what is taken of one answer, beside
	// [drain.MaxRecords], and what is told.
	maxBytes     = 2 << 20
	maxConnected = 10_000
	// answersEvery is how often answers with other words are taken in the long run,
	// and answersBurst how many at once: each is judged by.
	answersEvery = time.Second
	answersBurst = 5
)

// Config is what an [Exchange] needs. All of it is required.
type Config struct {
	// Names are the other control planes: host or host:port.
	Names []string
	// Dial connects to one of them. It must fail unless what it reached may
	// operate this control plane.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Who names who asks, by its address. One of Names is recognised by its
	// first part.
	Who func(ctx context.Context, remote string) (string, error)
	// Heard is given the words of another, each time it has news of any kind.
	Heard func(ctx context.Context, words []drain.Record)
	Log   *slog.Logger
}

// Exchange tells others what is said here, and hears what is said there.
type Exchange struct {
	c    Config
	http *http.Client

	mu      sync.Mutex
	told    answer
	changed chan struct{} // closed when told changes, or how it stands with another
	peers   map[string]*State
}

// State is how it stands with one other control plane.
type State struct {
	Name string `json:"name"`
	// Heard is when it was last asked with success.
	Heard time.Time `json:"heard,omitzero"`
	// Asked is when it last asked; Knows tells whether it has all that is said
	// here.
	Asked time.Time `json:"asked,omitzero"`
	Knows bool      `json:"knows"`
	// Error is why it can't be asked now.
	Error string `json:"error,omitempty"`

	version   string       // that it has of ours
	connected []netip.Addr // to it, when it was heard
}

// answer is what is told, and which of all that there was to tell it is.
type answer struct {
	Version string         `json:"version"`
	Words   []drain.Record `json:"words"`
	// Connected are the addresses of the devices whose own Envoys are connected to
	// the one that answers.
	Connected []netip.Addr `json:"connected,omitempty"`
}

// sameWords tells whether two versions differ in no more than who is connected.
func sameWords(a, b string) bool {
	a, _, _ = strings.Cut(a, "-")
	b, _, _ = strings.Cut(b, "-")
	return a == b
}

// New returns an exchange that has nothing to tell yet.
func New(c Config) *Exchange {
	e := &Exchange{
		c: c, changed: make(chan struct{}), peers: make(map[string]*State),
		// Whom a connection reaches is judged when it is made, so it is made anew
		// for each question.
		http: &http.Client{Transport: &http.Transport{DialContext: c.Dial, DisableKeepAlives: true}},
	}
	for _, name := range c.Names {
		e.peers[name] = &State{Name: name}
	}
	e.Publish(nil, nil)
	return e
}

// Publish replaces what is told to others: operators' words, and the addresses of
// the devices whose Envoys are connected here.
func (e *Exchange) Publish(words []drain.Record, connected map[netip.Addr]bool) {
	if words == nil {
		words = []drain.Record{}
	}
	words = slices.Clone(words[:min(len(words), drain.MaxRecords)])
	for i := range words {
		words[i].MissingSince = time.Time{} // it is for others to find out
	}
	addresses := slices.SortedFunc(maps.Keys(connected), netip.Addr.Compare)
	addresses = addresses[:min(len(addresses), maxConnected)]
	version, err := versionOf(words, addresses)
	if err != nil {
		e.c.Log.Error("words can't be told to other control planes", "error", err) // there is no such word
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if version != e.told.Version {
		e.told = answer{version, words, addresses}
		e.wake()
	}
}

// versionOf is a hash of the words, a dash, and one of who is connected.
func versionOf(words []drain.Record, connected []netip.Addr) (string, error) {
	var parts []string
	for _, part := range []any{words, connected} {
		text, err := json.Marshal(part)
		if err != nil {
			return "", fmt.Errorf("write down what is told: %w", err)
		}
		sum := sha256.Sum256(text)
		parts = append(parts, hex.EncodeToString(sum[:8]))
	}
	return strings.Join(parts, "-"), nil
}

// Connected are the addresses of the devices whose Envoys are connected to any of
// the others, or were when that could be asked last, not long ago.
func (e *Exchange) Connected() []netip.Addr {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []netip.Addr
	for _, s := range e.peers {
		if time.Since(s.Heard) < believedFor {
			all = append(all, s.connected...)
		}
	}
	return all
}

// wake lets go who waits for a change. The lock is held.
func (e *Exchange) wake() {
	close(e.changed)
	e.changed = make(chan struct{})
}

// States are the others, in the order in which they were named.
func (e *Exchange) States() []State {
	states, _ := e.look()
	return states
}

// look gives the others' states, and what is closed when they change.
func (e *Exchange) look() ([]State, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := []State{}
	for _, name := range e.c.Names {
		s := *e.peers[name]
		s.Knows = sameWords(s.version, e.told.Version)
		all = append(all, s)
	}
	return all, e.changed
}

// Known waits until all others that can be asked have the words that are told
// here, or ctx ends. For one that can't be asked nobody knows how long it takes.
func (e *Exchange) Known(ctx context.Context) []State {
	for {
		states, changed := e.look()
		if !slices.ContainsFunc(states, func(s State) bool { return !s.Knows && s.Error == "" }) {
			return states
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return states
		}
	}
}

// ServeHTTP answers another control plane, once there is something that it has
// not seen. Who may ask is decided before.
func (e *Exchange) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	seen := r.URL.Query().Get("seen")
	if len(seen) > maxVersion {
		http.Error(w, "seen is no version", http.StatusBadRequest)
		return
	}
	if name, err := e.c.Who(r.Context(), r.RemoteAddr); err == nil {
		e.asked(name, seen)
	}
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(e.news(ctx, seen)) // it went away, and will ask again
}

// news is what is told, once it is another than what was seen or ctx ends.
func (e *Exchange) news(ctx context.Context, seen string) answer {
	for {
		e.mu.Lock()
		told, changed := e.told, e.changed
		e.mu.Unlock()
		if told.Version != seen {
			return told
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return told
		}
	}
}

// asked notes what one of the others has.
func (e *Exchange) asked(name, seen string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.peers {
		if label(s.Name) != label(name) {
			continue
		}
		s.Asked = time.Now()
		if s.version != seen {
			s.version = seen
			e.wake()
		}
	}
}

// label is a host's first part, without a port and in lower case.
func label(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	first, _, _ := strings.Cut(strings.ToLower(host), ".")
	return first
}

// Run asks all others until ctx ends.
func (e *Exchange) Run(ctx context.Context) error {
	var g errgroup.Group
	for _, name := range e.c.Names {
		g.Go(func() error {
			e.follow(ctx, name)
			return nil
		})
	}
	return g.Wait()
}

// follow asks one of the others over and over.
func (e *Exchange) follow(ctx context.Context, name string) {
	var seen string
	pace := rate.NewLimiter(rate.Every(answersEvery), answersBurst)
	for ctx.Err() == nil {
		a, err := e.ask(ctx, name, seen)
		if ctx.Err() != nil {
			return
		}
		e.note(name, a, err)
		switch {
		case err != nil:
			seen = "" // it may be another one by then
			wait(ctx, again)
		case a.Version != seen:
			e.c.Heard(ctx, a.Words)
			if sameWords(a.Version, seen) {
				wait(ctx, again) // Envoys may come and go by the thousand
			}
			if pace.Wait(ctx) != nil {
				return // ctx ended
			}
			seen = a.Version
		}
	}
}

func wait(ctx context.Context, long time.Duration) {
	t := time.NewTimer(long)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// note remembers what another said, or that it could not be asked, and logs when
// that changes.
func (e *Exchange) note(name string, a answer, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.peers[name]
	was := s.Error
	if err == nil {
		s.Heard, s.Error, s.connected = time.Now(), "", a.Connected
		if was != "" {
			e.c.Log.Info("another control plane can be asked again what operators said to it", "peer", name)
		}
		return
	}
	s.Error = err.Error()
	if was == "" {
		e.wake()
		e.c.Log.Warn("another control plane can't be asked what operators said to it", "peer", name, "error", err)
	}
}

// ask is one question.
func (e *Exchange) ask(ctx context.Context, name, seen string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	u := url.URL{Scheme: "http", Host: name, Path: Path, RawQuery: url.Values{"seen": {seen}}.Encode()}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return answer{}, fmt.Errorf("ask %s: %w", name, err)
	}
	response, err := e.http.Do(request)
	if err != nil {
		var because *url.Error
		if errors.As(err, &because) {
			err = because.Err // the URL says nothing to people
		}
		return answer{}, fmt.Errorf("ask %s: %w", name, err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBytes+1))
	switch {
	case err != nil:
		return answer{}, fmt.Errorf("ask %s: read its answer: %w", name, err)
	case response.StatusCode != http.StatusOK:
		return answer{}, fmt.Errorf("ask %s: it answers %s: %.200q", name, response.Status, body)
	case len(body) > maxBytes:
		return answer{}, fmt.Errorf("ask %s: its answer is longer than %d bytes", name, maxBytes)
	}
	a, err := read(body, time.Now())
	if err != nil {
		return answer{}, fmt.Errorf("ask %s: %w", name, err)
	}
	return a, nil
}

// read takes an answer, or refuses it as a whole.
func read(body []byte, now time.Time) (answer, error) {
	var raw struct {
		Version          string
		Words, Connected json.RawMessage
	}
	if err := json.Unmarshal(body, &raw); err != nil {
		return answer{}, fmt.Errorf("its answer makes no sense: %w", err)
	}
	if raw.Version == "" || len(raw.Version) > maxVersion {
		return answer{}, errors.New("its answer makes no sense: it has no version")
	}
	words, err := yamldoc.List[drain.Record](raw.Words, drain.MaxRecords)
	if err != nil {
		return answer{}, fmt.Errorf("its answer makes no sense: words: %w", err)
	}
	connected, err := yamldoc.List[netip.Addr](raw.Connected, maxConnected)
	if err != nil {
		return answer{}, fmt.Errorf("its answer makes no sense: connected: %w", err)
	}
	for i := range words {
		if err := errors.Join(words[i].Check(), words[i].CheckDates(now)); err != nil {
			return answer{}, err
		}
		words[i].MissingSince = time.Time{} // it says what is known there
	}
	return answer{raw.Version, words, connected}, nil
}

// maxVersion is longer than any version is.
const maxVersion = 200
