package dashboard

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"
)

const (
	// every is the pace of the page's figures.
	every = time.Second
	// maxPages bounds how many pages are kept up to date at once.
	maxPages = 64
)

// hub keeps every open page up to date. It looks at a service and encodes what
// it sees once, however many look on, and not at all while nobody does.
type hub struct {
	look   func(service string) View
	assets string
	wake   chan struct{}
	done   chan struct{} // closed when the hub ends

	mu       sync.Mutex
	channels map[string]*channel
	pages    int
}

// channel is a service that somebody looks at, by the name that they asked for.
type channel struct {
	pages                   map[*page]struct{}
	snapshot, tick, history []byte // the last events
}

// page is one open page. Of each event it gets the last: one that is too slow
// for a tick gets the next instead.
type page struct {
	wake chan struct{}

	mu                      sync.Mutex
	snapshot, tick, history []byte // not yet sent
}

func newHub(look func(string) View, assets string) *hub {
	return &hub{look: look, assets: assets, wake: make(chan struct{}, 1), done: make(chan struct{}), channels: make(map[string]*channel)}
}

// run looks once a second, and whenever something changes.
func (h *hub) run(ctx context.Context) error {
	defer close(h.done)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-h.wake:
		}
		if err := h.update(); err != nil {
			return err
		}
	}
}

func (h *hub) changed() {
	select {
	case h.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// update looks at each service that is open, and tells its pages what is new.
func (h *hub) update() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for service, c := range h.channels {
		if err := c.update(h.look(service), h.assets); err != nil {
			return err
		}
	}
	return nil
}

func (c *channel) update(v View, assets string) error {
	v.Snapshot.Assets = assets
	snapshot, err := event("snapshot", v.Snapshot)
	if err != nil {
		return err
	}
	tick, err := event("tick", v.Tick)
	if err != nil {
		return err
	}
	history, err := event("history", v.History)
	if err != nil {
		return err
	}
	if bytes.Equal(snapshot, c.snapshot) {
		snapshot = nil
	} else {
		c.snapshot = snapshot
	}
	if bytes.Equal(history, c.history) {
		history = nil
	} else {
		c.history = history
	}
	c.tick = tick
	for p := range c.pages {
		p.put(snapshot, tick, history)
	}
	return nil
}

// event is a server-sent event.
// https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
func event(name string, v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode the page's %s: %w", name, err)
	}
	return fmt.Appendf(nil, "event: %s\ndata: %s\n\n", name, body), nil
}

// put leaves events for a page; nil is no news. A tick counts on the order of
// the snapshot before it, so the two are put and taken together.
func (p *page) put(snapshot, tick, history []byte) {
	p.mu.Lock()
	if snapshot != nil {
		p.snapshot = snapshot
	}
	if history != nil {
		p.history = history
	}
	p.tick = tick
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// take is what is new for a page, in the order in which it must be read.
func (p *page) take() [][]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	news := [][]byte{p.snapshot, p.history, p.tick}
	p.snapshot, p.history, p.tick = nil, nil, nil
	return news
}

// join opens a page on a service; nil if there are too many.
func (h *hub) join(service string) *page {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pages >= maxPages {
		return nil
	}
	h.pages++
	c, ok := h.channels[service]
	if !ok {
		c = &channel{pages: make(map[*page]struct{})}
		h.channels[service] = c
		h.changed() // so that it need not wait for its first second
	}
	p := &page{wake: make(chan struct{}, 1)}
	c.pages[p] = struct{}{}
	if c.snapshot != nil {
		p.put(c.snapshot, c.tick, c.history)
	}
	return p
}

func (h *hub) leave(service string, p *page) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pages--
	c := h.channels[service]
	delete(c.pages, p)
	if len(c.pages) == 0 {
		delete(h.channels, service)
	}
}
