// Package peers lets control planes of one tailnet know what operators said to
// any of them.
//
// Each asks each other for its words, and again as soon as it has an answer; the
// answer waits until there is something new. So a word travels at once, one that
// could not be told is told as soon as that is possible, and what asks anew with
// the version that it has proves that it knows it. Nobody can push a word: who is
// asked is named here, and whether to believe it is decided by the connection.
package peers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tailxds/tailxds/internal/operator"
)

// Path is where words are asked for.
const Path = "/words"

const (
	// patience is how long an answer waits for something new, and askWithin how
	// long a question may take.
	patience  = 20 * time.Second
	askWithin = patience + 10*time.Second
	// again is how soon one that could not be asked is asked again.
	again = time.Second
	// mostBytes and mostWords are what is taken of one answer.
	mostBytes = 8 << 20
	mostWords = 10_000
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
	// Heard is given the words of another, each time it has new ones.
	Heard func(ctx context.Context, words []operator.Word)
	Log   *slog.Logger
}

// Exchange tells others what is said here, and hears what is said there.
type Exchange struct {
	c    Config
	http *http.Client

	mu      sync.Mutex
	told    answer
	changed chan struct{} // closed when told changes, or what another has
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

	version string // that it has of ours
}

// answer is what is told: the words, and which they are.
type answer struct {
	Version string          `json:"version"`
	Words   []operator.Word `json:"words"`
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
	e.Tell(nil)
	return e
}

// Tell replaces what is told to others.
func (e *Exchange) Tell(words []operator.Word) {
	if words == nil {
		words = []operator.Word{}
	}
	text, err := json.Marshal(words)
	if err != nil {
		e.c.Log.Error("words can't be told to other control planes", "error", err) // there is no such word
		return
	}
	sum := sha256.Sum256(text)
	e.mu.Lock()
	defer e.mu.Unlock()
	if version := hex.EncodeToString(sum[:8]); version != e.told.Version {
		e.told = answer{version, words}
		e.wake()
	}
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
		s.Knows = s.version == e.told.Version
		all = append(all, s)
	}
	return all, e.changed
}

// Known waits until all others have what is told here, or ctx ends.
func (e *Exchange) Known(ctx context.Context) []State {
	for {
		states, changed := e.look()
		if !slices.ContainsFunc(states, func(s State) bool { return !s.Knows }) {
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
	for ctx.Err() == nil {
		a, err := e.ask(ctx, name, seen)
		if ctx.Err() != nil {
			return
		}
		e.note(name, err)
		switch {
		case err != nil:
			seen = "" // it may be another one by then
			wait(ctx, again)
		case a.Version != seen:
			e.c.Heard(ctx, a.Words)
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

// note remembers whether another could be asked, and logs when that changes.
func (e *Exchange) note(name string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.peers[name]
	was := s.Error
	if err == nil {
		s.Heard, s.Error = time.Now(), ""
		if was != "" {
			e.c.Log.Info("another control plane can be asked again what operators said to it", "peer", name)
		}
		return
	}
	s.Error = err.Error()
	if was == "" {
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
	body, err := io.ReadAll(io.LimitReader(response.Body, mostBytes+1))
	switch {
	case err != nil:
		return answer{}, fmt.Errorf("ask %s: read its answer: %w", name, err)
	case response.StatusCode != http.StatusOK:
		return answer{}, fmt.Errorf("ask %s: it answers %s: %.200q", name, response.Status, body)
	case len(body) > mostBytes:
		return answer{}, fmt.Errorf("ask %s: its answer is longer than %d bytes", name, mostBytes)
	}
	a, err := read(body)
	if err != nil {
		return answer{}, fmt.Errorf("ask %s: %w", name, err)
	}
	return a, nil
}

// read takes an answer, or refuses it as a whole.
func read(body []byte) (answer, error) {
	var a answer
	if err := json.Unmarshal(body, &a); err != nil {
		return answer{}, fmt.Errorf("its answer makes no sense: %w", err)
	}
	if a.Version == "" || len(a.Words) > mostWords {
		return answer{}, fmt.Errorf("its answer has no version, or more than %d words", mostWords)
	}
	for _, w := range a.Words {
		if err := w.Check(); err != nil {
			return answer{}, err
		}
	}
	return a, nil
}
