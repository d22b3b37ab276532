package cache

import (
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
)

// deltaWatch is a client of the delta protocol that has all that it follows, up to a
// version, and waits for more. While it waits, its stream leaves the subscription alone.
type deltaWatch struct {
	sub   cache.Subscription
	to    chan cache.DeltaResponse
	at    *position // of its stream
	since uint64
}

// wildcard is the name by which a client subscribes to all of a type.
const wildcard = "*"

// watchDelta answers a request, or has it wait until there is something to answer.
func (c *typeCache) watchDelta(r *cache.DeltaRequest, sub cache.Subscription, at *position, to chan cache.DeltaResponse) (cancel func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.retired {
		return nil, errRetired
	}
	pending, err := c.pendingChanges(r, sub, *at)
	if err != nil {
		return nil, err
	}
	w := &deltaWatch{sub: sub, to: to, at: at, since: c.version}
	// An Envoy that asks for all there is waits for an answer, even an empty one.
	if len(pending) > 0 || (sub.IsWildcard() && r.GetResponseNonce() == "") {
		return nil, c.respondDelta(w, pending)
	}
	c.deltaWatches[w] = struct{}{}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.deltaWatches, w)
	}, nil
}

// answerDelta answers a watch with what has changed, if anything has that it follows.
func (c *typeCache) answerDelta(w *deltaWatch) error {
	pending, err := withoutKnown(w.sub, c.changedSince(w.since, w.sub))
	if err != nil {
		return err
	}
	w.since = c.version
	if len(pending) == 0 {
		return nil
	}
	delete(c.deltaWatches, w)
	return c.respondDelta(w, pending)
}

// respondDelta sends entries to a client, which has all that it follows then.
func (c *typeCache) respondDelta(w *deltaWatch, entries []*entry) error {
	out := &discovery.DeltaDiscoveryResponse{SystemVersionInfo: c.wireVersion(c.version), TypeUrl: c.URL, Resources: make([]*discovery.Resource, 0, len(entries))}
	for _, e := range entries {
		if !e.exists() {
			out.RemovedResources = append(out.RemovedResources, e.name)
			continue
		}
		r, err := e.packed()
		if err != nil {
			return err
		}
		out.Resources = append(out.Resources, r)
	}
	*w.at = position{in: c, version: c.version}
	w.to <- &cache.DeltaPassthroughResponse{ // there is room: a stream has one watch a type
		DeltaRequest: &cache.DeltaRequest{TypeUrl: c.URL}, DeltaDiscoveryResponse: out,
		// What the client has is in the position. go-control-plane notes here what it
		// must be sent again: see resend.
		NextVersionMap: make(map[string]string),
	}
	return nil
}

// pendingChanges returns the entries that a client must be sent upon its request.
func (c *typeCache) pendingChanges(r *cache.DeltaRequest, sub cache.Subscription, at position) ([]*entry, error) {
	switch {
	case at.in != c:
		return c.compareKnown(sub)
	case at.version < c.compactedThrough:
		return nil, status.Errorf(codes.Unavailable, "too many %s have gone since this stream read last: connect again", c.Name)
	case slices.Contains(r.GetResourceNamesSubscribe(), wildcard):
		pending := append(c.followed(sub), slices.DeleteFunc(c.changedSince(at.version, sub), (*entry).exists)...)
		return append(pending, c.missing(r.GetResourceNamesSubscribe(), sub)...), nil
	}
	pending := append(c.changedSince(at.version, sub), c.resend(r, sub, at.version)...)
	if slices.Contains(r.GetResourceNamesUnsubscribe(), wildcard) && !sub.IsWildcard() {
		pending = append(pending, c.unsubscribed(at.version, sub)...)
	}
	return pending, nil
}

// unsubscribed returns removals of the names that a client followed, at a version, when
// it followed all, and now does not. It is sent them wherever its request and answers to
// earlier ones meet.
func (c *typeCache) unsubscribed(version uint64, sub cache.Subscription) []*entry {
	var removed []*entry
	for name, at := range c.byName {
		if e := at.Value.(*entry); (e.exists() || e.changed > version) && !follows(sub, name) {
			removed = append(removed, &entry{name: name})
		}
	}
	return removed
}

// resend returns the entries that have not changed since a version, and that a client
// wants all the same.
func (c *typeCache) resend(r *cache.DeltaRequest, sub cache.Subscription, version uint64) []*entry {
	var entries []*entry
	once := make(map[string]bool)
	add := func(e *entry) {
		if e.changed <= version && !once[e.name] {
			once[e.name] = true
			entries = append(entries, e)
		}
	}
	// A client that asks for a name once more may have forgotten it.
	// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-docs/xds_protocol#how-the-client-specifies-what-resources-to-return
	for _, name := range r.GetResourceNamesSubscribe() {
		if e, _ := c.get(name); e != nil {
			add(e)
		}
	}
	for _, e := range c.missing(r.GetResourceNamesSubscribe(), sub) {
		add(e)
	}
	// A client that follows all, and no longer one name besides, is sent what becomes of
	// that. go-control-plane notes such a name as returned.
	for name := range sub.ReturnedResources() {
		switch e, _ := c.get(name); {
		case !follows(sub, name):
		case e != nil:
			add(e)
		default:
			add(&entry{name: name})
		}
	}
	return entries
}

// compareKnown returns the entries that a client must be sent that says itself what it
// has: one that was connected before, to this control plane or another.
func (c *typeCache) compareKnown(sub cache.Subscription) ([]*entry, error) {
	pending, err := withoutKnown(sub, c.followed(sub))
	known := sub.ReturnedResources()
	for name := range known {
		if _, exists := c.get(name); !exists || !follows(sub, name) {
			pending = append(pending, &entry{name: name})
		}
	}
	unknown := make([]string, 0, len(sub.SubscribedResources()))
	for name := range sub.SubscribedResources() {
		if _, ok := known[name]; !ok {
			unknown = append(unknown, name)
		}
	}
	return append(pending, c.missing(unknown, sub)...), err
}

// missing returns removals of those of the names that a client asks for of which there
// has been no resource, so that it need not wait for them.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-docs/xds_protocol#knowing-when-a-requested-resource-does-not-exist
func (c *typeCache) missing(names []string, sub cache.Subscription) []*entry {
	var removed []*entry
	once := make(map[string]bool)
	for _, name := range names {
		if e, _ := c.get(name); e != nil || name == wildcard || once[name] || !follows(sub, name) {
			continue
		}
		once[name] = true
		removed = append(removed, &entry{name: name})
	}
	return removed
}

// withoutKnown returns those of the entries that a client does not have, as far as it
// said.
func withoutKnown(sub cache.Subscription, entries []*entry) (pending []*entry, err error) {
	known := sub.ReturnedResources()
	for _, e := range entries {
		if version, ok := known[e.name]; ok && e.exists() {
			r, err := e.packed()
			if err != nil {
				return nil, err
			}
			if r.GetVersion() == version {
				continue
			}
		}
		pending = append(pending, e)
	}
	return pending, nil
}
