package dashboard

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// updateInterval is how often figures change, and minUpdateInterval the least time
	// between two updates.
	updateInterval    = time.Second
	minUpdateInterval = 100 * time.Millisecond
	// maxPages bounds the open pages, maxPagesPerAddress those of one address, and
	// maxLoopbackPages those of this machine, where a proxy may stand for many people.
	maxPages           = 256
	maxPagesPerAddress = 16
	maxLoopbackPages   = 64
	// maxServiceName bounds the name of a service that a page asks for.
	maxServiceName = 253
)

// hub keeps open pages up to date. It views and encodes a service once, however many
// pages show it and by whatever name, and never while none does.
type hub struct {
	views  func(services []string) []*View
	assets string
	wake   chan struct{}
	done   chan struct{} // closed when the hub ends

	mu       sync.Mutex
	channels map[string]*channel
	pages    int
	viewers  map[netip.Addr]int // pages of each address
}

// channel is a service with open pages, by the name that they asked for.
type channel struct {
	pages                   map[*page]struct{}
	snapshot, tick, history []byte // the last events
}

// page is one open page. Of each event it gets the last: a slow page skips ticks.
type page struct {
	service string // that was asked for
	viewer  netip.Addr
	wake    chan struct{}

	mu                      sync.Mutex
	snapshot, tick, history []byte // not yet sent
}

func newHub(look func([]string) []*View, assets string) *hub {
	return &hub{
		views: look, assets: assets, wake: make(chan struct{}, 1), done: make(chan struct{}),
		channels: make(map[string]*channel), viewers: make(map[netip.Addr]int),
	}
}

// run updates pages once a second, and whenever something changes.
func (h *hub) run(ctx context.Context) error {
	defer close(h.done)
	tick := time.NewTicker(updateInterval)
	defer tick.Stop()
	spacing := time.NewTimer(0)
	defer spacing.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-spacing.C:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-h.wake:
		}
		if err := h.update(); err != nil {
			return err
		}
		spacing.Reset(minUpdateInterval)
	}
}

func (h *hub) changed() {
	select {
	case h.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// update views the services with open pages, and sends what is new.
func (h *hub) update() error {
	h.mu.Lock()
	services := slices.Sorted(maps.Keys(h.channels))
	h.mu.Unlock()
	if len(services) == 0 {
		return nil
	}
	views := h.views(services) // without the lock, since it takes its time
	all := make(map[*View]encodedView, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, service := range services {
		e, encoded := all[views[i]]
		if !encoded {
			var err error
			if e, err = encodeView(*views[i], h.assets); err != nil {
				return err
			}
			all[views[i]] = e
		}
		if c := h.channels[service]; c != nil { // else its last page has left
			c.update(e)
		}
	}
	return nil
}

// encodedView are a view as pages are told it.
type encodedView struct{ snapshot, tick, history []byte }

func encodeView(v View, assets string) (e encodedView, err error) {
	v.Snapshot.Assets = assets
	if e.snapshot, err = encodeEvent("snapshot", v.Snapshot); err != nil {
		return e, err
	}
	if e.tick, err = encodeEvent("tick", v.Tick); err != nil {
		return e, err
	}
	e.history, err = encodeEvent("history", v.History)
	return e, err
}

func (c *channel) update(e encodedView) {
	if bytes.Equal(e.snapshot, c.snapshot) {
		e.snapshot = nil
	} else {
		c.snapshot = e.snapshot
	}
	if bytes.Equal(e.history, c.history) {
		e.history = nil
	} else {
		c.history = e.history
	}
	c.tick = e.tick
	for p := range c.pages {
		p.put(e.snapshot, e.tick, e.history)
	}
}

// encodeEvent is a server-sent event.
// https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
func encodeEvent(name string, v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode the page's %s: %w", name, err)
	}
	return fmt.Appendf(nil, "event: %s\ndata: %s\n\n", name, body), nil
}

// put queues events for a page; nil is no change. A tick depends on the order of the
// snapshot before it, so both are put and taken together.
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

// take returns what is new for a page, in the order in which it must be read.
func (p *page) take() [][]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	news := [][]byte{p.snapshot, p.history, p.tick}
	p.snapshot, p.history, p.tick = nil, nil, nil
	return news
}

// join opens a page on a service for a viewer's address; nil if too many are open.
func (h *hub) join(service string, viewer netip.Addr) *page {
	if len(service) > maxServiceName {
		service = "" // no service is called that
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	limit := maxPagesPerAddress
	if viewer.IsLoopback() {
		limit = maxLoopbackPages
	}
	if h.pages >= maxPages || h.viewers[viewer] >= limit {
		return nil
	}
	h.pages++
	h.viewers[viewer]++
	c, ok := h.channels[service]
	if !ok {
		c = &channel{pages: make(map[*page]struct{})}
		h.channels[service] = c
		h.changed() // so that it need not wait for its first second
	}
	p := &page{service: service, viewer: viewer, wake: make(chan struct{}, 1)}
	c.pages[p] = struct{}{}
	if c.snapshot != nil {
		p.put(c.snapshot, c.tick, c.history)
	}
	return p
}

func (h *hub) leave(p *page) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pages--
	if h.viewers[p.viewer]--; h.viewers[p.viewer] == 0 {
		delete(h.viewers, p.viewer)
	}
	c := h.channels[p.service]
	delete(c.pages, p)
	if len(c.pages) == 0 {
		delete(h.channels, p.service)
	}
}
