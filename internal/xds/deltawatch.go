package xds

import (
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
)

// deltaWatch is a client of the delta protocol that has been told all, up to a
// version, and waits for more. While it waits, its stream leaves the subscription
// alone.
type deltaWatch struct {
	sub   cache.Subscription
	to    chan cache.DeltaResponse
	since uint64
}

// everything is the name by which a client follows all of a type.
const everything = "*"

// CreateDeltaWatch implements [cache.ConfigWatcher].
func (c *collection) CreateDeltaWatch(r *cache.DeltaRequest, sub cache.Subscription, to chan cache.DeltaResponse) (func(), error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.retired {
		return nil, errRetired
	}
	news, err := c.untold(r, sub)
	if err != nil {
		return nil, err
	}
	w := &deltaWatch{sub: sub, to: to, since: c.version}
	// An Envoy that asks for all there is waits for an answer, be there none.
	if len(news) > 0 || (sub.IsWildcard() && r.GetResponseNonce() == "") {
		return nil, c.tell(w, news)
	}
	c.deltas[w] = struct{}{}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.deltas, w)
	}, nil
}

// newsFor tells a client that waits what it does not know, if that is anything.
func (c *collection) newsFor(w *deltaWatch) error {
	news, err := unknown(w.sub, c.since(w.since, w.sub))
	if err != nil {
		return err
	}
	w.since = c.version
	if len(news) == 0 {
		return nil
	}
	delete(c.deltas, w)
	return c.tell(w, news)
}

// tell sends the entries to a client, which knows all then.
func (c *collection) tell(w *deltaWatch, news []*entry) error {
	out := &discovery.DeltaDiscoveryResponse{SystemVersionInfo: c.wire, TypeUrl: c.URL, Resources: make([]*discovery.Resource, 0, len(news))}
	for _, e := range news {
		if !e.there() {
			out.RemovedResources = append(out.RemovedResources, e.name)
			continue
		}
		r, err := e.packed()
		if err != nil {
			return err
		}
		out.Resources = append(out.Resources, r)
	}
	w.to <- &cache.DeltaPassthroughResponse{ // there is room: a stream has one watch a type
		DeltaRequest: c.asked, DeltaDiscoveryResponse: out, NextVersionMap: map[string]string{stampName: c.stamp},
	}
	return nil
}

func (c *collection) wireVersion(version uint64) string {
	return c.prefix + strconv.FormatUint(version, 10)
}

// A subscription remembers of a client that was answered only a stamp: up to
// which version it was told all that it follows. It lies where go-control-plane
// has a cache keep the versions of all that a client knows, under a name that no
// resource has; [doorway] sees to it that no client brings one along.
const stampName = ""

func (c *collection) stampOf(version uint64) string {
	return c.name + " " + strconv.FormatUint(version, 10)
}

// stamped reads a stamp of this collection.
func (c *collection) stamped(sub cache.Subscription) (version uint64, ok bool) {
	text, ok := strings.CutPrefix(sub.ReturnedResources()[stampName], c.name+" ")
	if !ok {
		return 0, false
	}
	version, err := strconv.ParseUint(text, 10, 64)
	return version, err == nil
}

// untold are the entries of which a client must be told upon its request.
func (c *collection) untold(r *cache.DeltaRequest, sub cache.Subscription) ([]*entry, error) {
	version, ok := c.stamped(sub)
	switch {
	case !ok:
		return c.compared(sub)
	case version < c.horizon:
		return nil, status.Errorf(codes.Unavailable, "too many %s have gone since this stream read last: connect again", c.Name)
	case slices.Contains(r.GetResourceNamesSubscribe(), everything):
		news := append(c.all(sub), slices.DeleteFunc(c.since(version, sub), (*entry).there)...)
		return append(news, c.missing(r.GetResourceNamesSubscribe(), sub)...), nil
	}
	news := append(c.since(version, sub), c.again(r, sub, version)...)
	if slices.Contains(r.GetResourceNamesUnsubscribe(), everything) && !sub.IsWildcard() {
		news = append(news, c.left(version, sub)...)
	}
	return news, nil
}

// left are the names that a client followed, at a version, when it followed all,
// and now does not. It is told that they are gone, wherever its request and
// answers to earlier ones meet.
func (c *collection) left(version uint64, sub cache.Subscription) []*entry {
	var gone []*entry
	for name, at := range c.byName {
		if e := at.Value.(*entry); (e.there() || e.changed > version) && !follows(sub, name) {
			gone = append(gone, &entry{name: name})
		}
	}
	return gone
}

// again are the entries that have not changed since a version, and of which a
// client wants to be told all the same.
func (c *collection) again(r *cache.DeltaRequest, sub cache.Subscription, version uint64) []*entry {
	var news []*entry
	once := make(map[string]bool)
	add := func(e *entry) {
		if e.changed <= version && !once[e.name] {
			once[e.name] = true
			news = append(news, e)
		}
	}
	// Whoever asks for a name once more may have forgotten it.
	// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-docs/xds_protocol#how-the-client-specifies-what-resources-to-return
	for _, name := range r.GetResourceNamesSubscribe() {
		if e, _ := c.get(name); e != nil {
			add(e)
		}
	}
	for _, e := range c.missing(r.GetResourceNamesSubscribe(), sub) {
		add(e)
	}
	// Who follows all, and no longer one name besides, is told what becomes of it.
	// go-control-plane notes such a name beside the stamp.
	for name := range sub.ReturnedResources() {
		switch e, _ := c.get(name); {
		case name == stampName || !follows(sub, name):
		case e != nil:
			add(e)
		default:
			add(&entry{name: name})
		}
	}
	return news
}

// compared are the entries of which a client must be told that says itself what it
// has: one that was connected before, to this control plane or another.
func (c *collection) compared(sub cache.Subscription) ([]*entry, error) {
	news, err := unknown(sub, c.all(sub))
	known := sub.ReturnedResources()
	for name := range known {
		if _, there := c.get(name); name != stampName && (!there || !follows(sub, name)) {
			news = append(news, &entry{name: name})
		}
	}
	asked := make([]string, 0, len(sub.SubscribedResources()))
	for name := range sub.SubscribedResources() {
		if _, told := known[name]; !told {
			asked = append(asked, name)
		}
	}
	return append(news, c.missing(asked, sub)...), err
}

// missing are those of the names that a client asks for of which there has been no
// resource. It is told that they are gone, so that it need not wait for them.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-docs/xds_protocol#knowing-when-a-requested-resource-does-not-exist
func (c *collection) missing(asked []string, sub cache.Subscription) []*entry {
	var gone []*entry
	once := make(map[string]bool)
	for _, name := range asked {
		if e, _ := c.get(name); e != nil || name == everything || name == stampName || once[name] || !follows(sub, name) {
			continue
		}
		once[name] = true
		gone = append(gone, &entry{name: name})
	}
	return gone
}

// unknown are those of the entries that a client does not have, as far as it said.
func unknown(sub cache.Subscription, entries []*entry) (news []*entry, err error) {
	known := sub.ReturnedResources()
	for _, e := range entries {
		if version, ok := known[e.name]; ok && e.there() {
			r, err := e.packed()
			if err != nil {
				return nil, err
			}
			if r.GetVersion() == version {
				continue
			}
		}
		news = append(news, e)
	}
	return news, nil
}
