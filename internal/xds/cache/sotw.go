package cache

import (
	"maps"
	"strings"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
)

// sotwWatch is a client of the state-of-the-world protocol that has all that it follows,
// up to a version, and waits for more. In this protocol each answer names all that a
// client follows, so nothing is gained by remembering less.
type sotwWatch struct {
	sub   cache.Subscription
	to    chan cache.Response
	since uint64
}

// watchSotw answers a request, or has it wait until there is something to answer.
func (c *typeCache) watchSotw(r *cache.Request, sub cache.Subscription, to chan cache.Response) (cancel func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.retired {
		return nil, errRetired
	}
	// A request without a version of ours is a first one, and wants an answer, even an
	// empty one; but for the rejection of a first answer. That waits for something new,
	// or the same would be sent and rejected as fast as the network goes.
	first := !strings.HasPrefix(r.GetVersionInfo(), c.prefix)
	rejection := r.GetErrorDetail() != nil && len(sub.ReturnedResources()) > 0
	w := &sotwWatch{sub: sub, to: to, since: c.version}
	if answered, err := c.respondSotw(w, first && !rejection); answered || err != nil {
		return nil, err
	}
	c.sotwWatches[w] = struct{}{}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.sotwWatches, w)
	}, nil
}

// answerSotw answers a watch, if anything has changed that it follows.
func (c *typeCache) answerSotw(w *sotwWatch) error {
	changed := len(c.changedSince(w.since, w.sub)) > 0
	w.since = c.version
	if !changed {
		return nil
	}
	answered, err := c.respondSotw(w, false)
	if answered {
		delete(c.sotwWatches, w)
	}
	return err
}

// respondSotw sends a client what there is. Of clusters and listeners that is always all
// that it follows, since what is missing there is removed; of other types it is what
// is new, since this protocol can't say that one of those is removed.
func (c *typeCache) respondSotw(w *sotwWatch, always bool) (answered bool, err error) {
	known := w.sub.ReturnedResources()
	send := c.followed(w.sub)
	var changed []*entry
	for _, e := range send {
		if version, ok := known[e.name]; !ok || version != c.wireVersion(e.changed) {
			changed = append(changed, e)
		}
	}
	next := maps.Clone(known)
	for name := range known {
		if _, exists := c.get(name); !exists || !follows(w.sub, name) {
			delete(next, name)
		}
	}
	full := cache.ResourceRequiresFullStateInSotw(c.URL)
	if !always && len(changed) == 0 && (len(next) == len(known) || !full) {
		return false, nil
	}
	if !full {
		send = changed
	}
	out := &discovery.DiscoveryResponse{VersionInfo: c.wireVersion(c.version), TypeUrl: c.URL}
	for _, e := range send {
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
