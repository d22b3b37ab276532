package cache

import (
	"container/list"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"

	"github.com/tailxds/tailxds/internal/xds/resource"
)

// typeCache is what is served of one type, and the watches that wait for a change of
// it. It stands where go-control-plane's LinearCache could, which compares all that a
// client follows for each change and each answer. A typeCache keeps its entries in the
// order in which they changed, and of each stream of the delta protocol only the
// version up to which it was sent all. So a change costs what changed, and what it
// sends. See docs/adr/021-a-change-costs-what-changed.md.
type typeCache struct {
	resource.Type
	prefix string // of its versions on the wire

	mu      sync.Mutex
	version uint64
	byName  map[string]*list.Element
	order   *list.List // of *entry; what changed last is at the back
	removed int        // how many of them are removed
	// compactedThrough is up to which version removed entries may be forgotten.
	compactedThrough uint64
	deltaWatches     map[*deltaWatch]struct{}
	sotwWatches      map[*sotwWatch]struct{}
	retired          bool // it is updated no more
}

// errRetired is of a watch in a cache that is updated no more.
var errRetired = errors.New("the cache is retired")

// maxRemoved is how many names that are served no more are remembered, for clients
// that were not sent their removal yet.
const maxRemoved = 10_000

// entry is a resource, or that there is none of this name any more.
type entry struct {
	name    string
	changed uint64        // the cache's version that made it so
	message proto.Message // nil if there is none
	// packed returns the message as clients get it, encoded when it is asked for first,
	// and then the same for all; nil if there is none.
	packed func() (*discovery.Resource, error)
}

func (e *entry) exists() bool { return e.packed != nil }

func newTypeCache(t resource.Type, prefix string, first resource.Set) *typeCache {
	c := &typeCache{
		Type: t, prefix: prefix, byName: make(map[string]*list.Element, len(first)), order: list.New(),
		deltaWatches: make(map[*deltaWatch]struct{}), sotwWatches: make(map[*sotwWatch]struct{}),
	}
	for name, r := range first {
		c.put(c.newEntry(name, r))
	}
	return c
}

// newEntry makes an entry that encodes its resource once. Its version is a hash of the
// content, so that another control plane, or this one after a restart, gives it the
// same.
func (c *typeCache) newEntry(name string, r proto.Message) *entry {
	return &entry{name: name, message: r, packed: sync.OnceValues(func() (*discovery.Resource, error) {
		raw, err := cache.MarshalResource(r)
		if err != nil {
			return nil, fmt.Errorf("encode %s %q: %w", c.Name, name, err)
		}
		return &discovery.Resource{Name: name, Version: cache.HashResource(raw), Resource: &anypb.Any{TypeUrl: c.URL, Value: raw}}, nil
	})}
}

// retire ends a cache in which no client waits, and returns whether it did.
func (c *typeCache) retire() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.retired = c.retired || len(c.deltaWatches)+len(c.sotwWatches) == 0
	return c.retired
}

// change is what is to be put into a cache.
type change struct {
	to      *typeCache
	changed []*entry // new, or others than before
	removed []string
}

// compare returns how a set differs from what is served. A resource is another only
// if its content is, since messages of the same content may have been built twice.
// What can't be written to the wire, such as text that is not UTF-8, is an error: it
// would fail every stream that asks for its type. Nothing else may update the cache
// meanwhile, but requests are answered: so it takes no lock.
func (c *typeCache) compare(next resource.Set) (change, error) {
	diff := change{to: c}
	for name, r := range next {
		old, exists := c.get(name)
		if exists && old.message == r {
			continue
		}
		e := c.newEntry(name, r)
		packed, err := e.packed()
		if err != nil {
			return change{}, err
		}
		if exists {
			if served, err := old.packed(); err == nil && served.GetVersion() == packed.GetVersion() {
				old.message = r
				continue
			}
		}
		diff.changed = append(diff.changed, e)
	}
	for name := range c.byName {
		if _, exists := c.get(name); exists && next[name] == nil {
			diff.removed = append(diff.removed, name)
		}
	}
	return diff, nil
}

// update puts entries in, takes the resources of some names out, and answers the
// watches that wait for any of them.
func (c *typeCache) update(changed []*entry, removed []string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.version++
	for _, e := range changed {
		e.changed = c.version
		c.put(e)
	}
	for _, name := range removed {
		c.put(&entry{name: name, changed: c.version})
	}
	for w := range c.deltaWatches {
		if err := c.answerDelta(w); err != nil {
			return err
		}
	}
	for w := range c.sotwWatches {
		if err := c.answerSotw(w); err != nil {
			return err
		}
	}
	c.compact()
	return nil
}

// put makes an entry the one of its name, and the last that changed.
func (c *typeCache) put(e *entry) {
	if at, ok := c.byName[e.name]; ok {
		if !at.Value.(*entry).exists() {
			c.removed--
		}
		c.order.Remove(at)
	}
	if !e.exists() {
		c.removed++
	}
	c.byName[e.name] = c.order.PushBack(e)
}

// compact bounds what is remembered of removed resources.
func (c *typeCache) compact() {
	for at := c.order.Front(); at != nil && c.removed > maxRemoved; {
		e, next := at.Value.(*entry), at.Next()
		if !e.exists() {
			c.order.Remove(at)
			delete(c.byName, e.name)
			c.removed--
			c.compactedThrough = e.changed
		}
		at = next
	}
}

// wireVersion is a version as clients get it.
func (c *typeCache) wireVersion(version uint64) string {
	return c.prefix + strconv.FormatUint(version, 10)
}

// get returns the entry of a name, nil if nothing is known of it, and whether it is a
// resource.
func (c *typeCache) get(name string) (e *entry, exists bool) {
	at, ok := c.byName[name]
	if !ok {
		return nil, false
	}
	e = at.Value.(*entry)
	return e, e.exists()
}

// follows reports whether a client is subscribed to a name.
func follows(sub cache.Subscription, name string) bool {
	if sub.IsWildcard() {
		return true
	}
	_, ok := sub.SubscribedResources()[name]
	return ok
}

// followed returns the resources that a client is subscribed to.
func (c *typeCache) followed(sub cache.Subscription) []*entry {
	var found []*entry
	if !sub.IsWildcard() {
		for name := range sub.SubscribedResources() {
			if e, exists := c.get(name); exists {
				found = append(found, e)
			}
		}
		return found
	}
	for at := c.order.Front(); at != nil; at = at.Next() {
		if e := at.Value.(*entry); e.exists() {
			found = append(found, e)
		}
	}
	return found
}

// changedSince returns the entries that changed after a version, of the names that a
// client is subscribed to. It looks at no more than changed, nor at more than the client
// follows.
func (c *typeCache) changedSince(version uint64, sub cache.Subscription) []*entry {
	var found []*entry
	left := len(sub.SubscribedResources())
	for at := c.order.Back(); at != nil; at = at.Prev() {
		e := at.Value.(*entry)
		if e.changed <= version {
			break
		}
		if left == 0 && !sub.IsWildcard() {
			return c.changedByName(version, sub)
		}
		left--
		if follows(sub, e.name) {
			found = append(found, e)
		}
	}
	return found
}

func (c *typeCache) changedByName(version uint64, sub cache.Subscription) []*entry {
	var found []*entry
	for name := range sub.SubscribedResources() {
		if e, _ := c.get(name); e != nil && e.changed > version {
			found = append(found, e)
		}
	}
	return found
}
