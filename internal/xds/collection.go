package xds

import (
	"container/list"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"

	"github.com/tailxds/tailxds/internal/xds/resource"
)

// collection is what is served of one type, and who waits for news of it. It
// stands where go-control-plane's LinearCache could, which compares all that a
// client follows for each change and each answer. A collection keeps its entries
// in the order in which they changed, and of each client of the delta protocol
// only up to where it was told all. So a change costs what changed, and whom it
// reaches. See docs/adr/021-a-change-costs-what-changed.md.
type collection struct {
	resource.Type
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
	changed uint64        // the collection's version that made it so
	message proto.Message // that it was made of; nil if there is none
	packed  packed        // nil if there is none
}

// packed is a resource as clients get it, encoded when it is asked for first, and
// then the same for all.
type packed func() (*discovery.Resource, error)

func (e *entry) there() bool { return e.packed != nil }

func newCollection(typ resource.Type, name, prefix string, first resource.Set) *collection {
	c := &collection{
		Type: typ, name: name, prefix: prefix, asked: &cache.DeltaRequest{TypeUrl: typ.URL}, byName: make(map[string]*list.Element, len(first)), order: list.New(),
		deltas: make(map[*deltaWatch]struct{}), worlds: make(map[*worldWatch]struct{}),
	}
	c.stamp, c.wire = c.stampOf(0), c.wireVersion(0)
	for name, r := range first {
		c.put(c.newEntry(name, r))
	}
	return c
}

// newEntry makes an entry that encodes its resource once. Its version is a hash of the
// content, so that another control plane, or this one after a restart, gives it the same.
func (c *collection) newEntry(name string, r proto.Message) *entry {
	return &entry{name: name, message: r, packed: sync.OnceValues(func() (*discovery.Resource, error) {
		raw, err := cache.MarshalResource(r)
		if err != nil {
			return nil, fmt.Errorf("encode %s %q: %w", c.Name, name, err)
		}
		return &discovery.Resource{Name: name, Version: cache.HashResource(raw), Resource: &anypb.Any{TypeUrl: c.URL, Value: raw}}, nil
	})}
}

// change is what is to be put into a collection.
type change struct {
	into    *collection
	changed []*entry // new, or others than before
	removed []string
}

// compare returns how a set differs from what is served. A resource is another only
// if its content is, since messages of the same content may have been built twice.
// What can't be written to the wire, such as text that is no UTF-8, is an error: it
// would fail every stream that asks for its type. Nothing else may update the
// collection meanwhile; requests are answered.
func (c *collection) compare(next resource.Set) (change, error) {
	diff := change{into: c}
	for name, r := range next {
		old, there := c.get(name)
		if there && old.message == r {
			continue
		}
		e := c.newEntry(name, r)
		encoded, err := e.packed()
		if err != nil {
			return change{}, err // says what can't be encoded
		}
		if there {
			if served, err := old.packed(); err == nil && served.GetVersion() == encoded.GetVersion() {
				old.message = r
				continue
			}
		}
		diff.changed = append(diff.changed, e)
	}
	for name := range c.byName {
		if _, there := c.get(name); there && next[name] == nil {
			diff.removed = append(diff.removed, name)
		}
	}
	return diff, nil
}

// update puts entries in, takes the resources of some names out, and tells those who
// follow them.
func (c *collection) update(changed []*entry, removed []string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.version++
	c.stamp, c.wire = c.stampOf(c.version), c.wireVersion(c.version)
	for _, e := range changed {
		e.changed = c.version
		c.put(e)
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
