package xds

import (
	"container/list"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/protobuf/types/known/anypb"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
)

// collection is what is served of one type, and who waits for news of it. It
// stands where go-control-plane's LinearCache could, which compares all that a
// client follows for each change and each answer. A collection keeps its entries
// in the order in which they changed, and of each client of the delta protocol
// only up to where it was told all. So a change costs what changed, and whom it
// reaches. See docs/adr/021-a-change-costs-what-changed.md.
type collection struct {
	url    string
	name   string              // tells it from others of its type
	prefix string              // of its versions on the wire
	asked  *cache.DeltaRequest // to which all responses answer, as far as anybody asks

	mu      sync.Mutex
	version uint64
	stamp   string // of the version, see [stampName]
	wire    string // the version as clients are told it
	byName  map[string]*list.Element
	order   *list.List // of *entry; what changed last is at the back
	gone    int        // how many of them are no more
	horizon uint64     // what went by then may be forgotten
	deltas  map[*deltaWatch]struct{}
	worlds  map[*worldWatch]struct{}
	retired bool // it is updated no more
}

// errRetired is of a watch in a collection that is updated no more.
var errRetired = errors.New("the collection is retired")

// retire ends a collection that no client waits for, and tells whether it did.
func (c *collection) retire() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.retired = c.retired || len(c.deltas)+len(c.worlds) == 0
	return c.retired
}

// mostGone is how many names that are served no more are remembered, for clients
// that were not told yet.
const mostGone = 10_000

// entry is a resource, or that there is none of this name any more.
type entry struct {
	name    string
	changed uint64 // the collection's version that made it so
	packed  packed // nil if there is none
}

// packed is a resource as clients get it, encoded when it is asked for first, and
// then the same for all.
type packed func() (*discovery.Resource, error)

func (e *entry) there() bool { return e.packed != nil }

func newCollection(url, name, prefix string, first resourceSet) *collection {
	c := &collection{
		url: url, name: name, prefix: prefix, asked: &cache.DeltaRequest{TypeUrl: url}, byName: make(map[string]*list.Element, len(first)), order: list.New(),
		deltas: make(map[*deltaWatch]struct{}), worlds: make(map[*worldWatch]struct{}),
	}
	c.stamp, c.wire = c.stampOf(0), c.wireVersion(0)
	for name, r := range first {
		c.put(&entry{name: name, packed: c.pack(name, r)})
	}
	return c
}

// pack encodes a resource once. Its version is a hash of its content, so that
// another control plane, or this one after a restart, gives it the same.
func (c *collection) pack(name string, r types.Resource) packed {
	return sync.OnceValues(func() (*discovery.Resource, error) {
		raw, err := cache.MarshalResource(r)
		if err != nil {
			return nil, fmt.Errorf("encode %s %q: %w", typeName(c.url), name, err)
		}
		return &discovery.Resource{Name: name, Version: cache.HashResource(raw), Resource: &anypb.Any{TypeUrl: c.url, Value: raw}}, nil
	})
}

// update puts resources in, new or others than before, takes some out, and tells
// those who follow them.
func (c *collection) update(changed map[string]packed, removed []string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.version++
	c.stamp, c.wire = c.stampOf(c.version), c.wireVersion(c.version)
	for name, p := range changed {
		c.put(&entry{name: name, changed: c.version, packed: p})
	}
	for _, name := range removed {
		c.put(&entry{name: name, changed: c.version})
	}
	for w := range c.deltas {
		if err := c.newsFor(w); err != nil {
			return err
		}
	}
	for w := range c.worlds {
		if err := c.worldFor(w); err != nil {
			return err
		}
	}
	c.forget()
	return nil
}

// put makes an entry the one of its name, and the last that changed.
func (c *collection) put(e *entry) {
	if at, ok := c.byName[e.name]; ok {
		if !at.Value.(*entry).there() {
			c.gone--
		}
		c.order.Remove(at)
	}
	if !e.there() {
		c.gone++
	}
	c.byName[e.name] = c.order.PushBack(e)
}

// forget bounds what is remembered of what is gone.
func (c *collection) forget() {
	for at := c.order.Front(); at != nil && c.gone > mostGone; {
		e, next := at.Value.(*entry), at.Next()
		if !e.there() {
			c.order.Remove(at)
			delete(c.byName, e.name)
			c.gone--
			c.horizon = e.changed
		}
		at = next
	}
}

// get is the entry of a name, nil if nothing is known of it, and whether it is a
// resource.
func (c *collection) get(name string) (*entry, bool) {
	at, ok := c.byName[name]
	if !ok {
		return nil, false
	}
	e := at.Value.(*entry)
	return e, e.there()
}

// follows tells whether a client wants to know of a name.
func follows(sub cache.Subscription, name string) bool {
	if sub.IsWildcard() {
		return true
	}
	_, ok := sub.SubscribedResources()[name]
	return ok
}

// all are the resources that a client follows.
func (c *collection) all(sub cache.Subscription) []*entry {
	var found []*entry
	if !sub.IsWildcard() {
		for name := range sub.SubscribedResources() {
			if e, ok := c.get(name); ok {
				found = append(found, e)
			}
		}
		return found
	}
	for at := c.order.Front(); at != nil; at = at.Next() {
		if e := at.Value.(*entry); e.there() {
			found = append(found, e)
		}
	}
	return found
}

// since are the entries that changed after a version and that a client follows. It
// looks at no more than changed, nor at more than the client follows.
func (c *collection) since(version uint64, sub cache.Subscription) []*entry {
	var found []*entry
	left := len(sub.SubscribedResources())
	for at := c.order.Back(); at != nil; at = at.Prev() {
		e := at.Value.(*entry)
		if e.changed <= version {
			break
		}
		if left == 0 && !sub.IsWildcard() {
			return c.sinceByName(version, sub)
		}
		left--
		if follows(sub, e.name) {
			found = append(found, e)
		}
	}
	return found
}

func (c *collection) sinceByName(version uint64, sub cache.Subscription) []*entry {
	var found []*entry
	for name := range sub.SubscribedResources() {
		if at, ok := c.byName[name]; ok && at.Value.(*entry).changed > version {
			found = append(found, at.Value.(*entry))
		}
	}
	return found
}
