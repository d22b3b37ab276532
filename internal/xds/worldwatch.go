package xds

import (
	"maps"
	"strings"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
)

// worldWatch is a client of the state-of-the-world protocol that has been told
// all, up to a version, and waits for more. In this protocol each answer names
// all that a client follows, so that nothing is to be won by remembering less.
type worldWatch struct {
	sub   cache.Subscription
	to    chan cache.Response
	since uint64
}

// CreateWatch implements [cache.ConfigWatcher].
func (c *collection) CreateWatch(r *cache.Request, sub cache.Subscription, to chan cache.Response) (func(), error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.retired {
		return nil, errRetired
	}
	// A request without a version of ours is a first one, and wants an answer, be it
	// empty; but for the rejection of a first answer. That waits for something new,
	// or the same would be sent and rejected as fast as the network goes.
	first := !strings.HasPrefix(r.GetVersionInfo(), c.prefix)
	rejection := r.GetErrorDetail() != nil && len(sub.ReturnedResources()) > 0
	w := &worldWatch{sub: sub, to: to, since: c.version}
	if answered, err := c.world(w, first && !rejection); answered || err != nil {
		return nil, err
	}
	c.worlds[w] = struct{}{}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.worlds, w)
	}, nil
}

// worldFor tells a client that waits what it does not know, if that is anything.
func (c *collection) worldFor(w *worldWatch) error {
	if len(c.since(w.since, w.sub)) == 0 {
		w.since = c.version
		return nil
	}
	w.since = c.version
	answered, err := c.world(w, false)
	if answered {
		delete(c.worlds, w)
	}
	return err
}

// world sends a client what there is. Of clusters and listeners that is always all
// that it follows, since what is missing there is gone; of other types it is what
// is new, since this protocol can't say that one of those is gone.
func (c *collection) world(w *worldWatch, always bool) (answered bool, err error) {
	known := w.sub.ReturnedResources()
	all := c.all(w.sub)
	var news []*entry
	for _, e := range all {
		if version, ok := known[e.name]; !ok || version != c.wireVersion(e.changed) {
			news = append(news, e)
		}
	}
	var gone []string
	for name := range known {
		if _, there := c.get(name); !there || !follows(w.sub, name) {
			gone = append(gone, name)
		}
	}
	whole := cache.ResourceRequiresFullStateInSotw(c.URL)
	if !always && len(news) == 0 && (len(gone) == 0 || !whole) {
		return false, nil
	}
	if whole {
		news = all
	}
	next := maps.Clone(known)
	for _, name := range gone {
		delete(next, name)
	}
	out := &discovery.DiscoveryResponse{VersionInfo: c.wire, TypeUrl: c.URL}
	for _, e := range news {
		r, err := e.packed()
		if err != nil {
			return false, err
		}
		out.Resources = append(out.Resources, r.GetResource())
		next[e.name] = c.wireVersion(e.changed)
	}
	w.to <- &cache.PassthroughResponse{ // there is room: a stream has one watch a type
		Request: &cache.Request{TypeUrl: c.URL}, DiscoveryResponse: out, ReturnedResources: next,
	}
	return true, nil
}
