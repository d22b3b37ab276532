package cache

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"pgregory.net/rapid"

	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"

	"github.com/tailxds/tailxds/internal/xds/resource"
)

// content is a resource of a name, with something in it that can be told apart.
func content(name string, n uint32) types.Resource {
	return &endpoint.ClusterLoadAssignment{ClusterName: name, Policy: &endpoint.ClusterLoadAssignment_Policy{OverprovisioningFactor: wrapperspb.UInt32(n + 1)}}
}

// holding is a cache and what they must hold.
type holding struct {
	*typeCache
	now map[string]uint32
}

// publish changes some of it at random, by one update.
func (h *holding) publish(t *rapid.T) (names []string) {
	changed, removed := make(resource.Set), []string(nil)
	names = rapid.SliceOfNDistinct(rapid.SampledFrom(someNames), 1, 3, rapid.ID).Draw(t, "names")
	for _, name := range names {
		if _, there := h.now[name]; there && rapid.Bool().Draw(t, "goes") {
			removed = append(removed, name)
			delete(h.now, name)
			continue
		}
		h.now[name] = (h.now[name] + rapid.Uint32Range(1, 2).Draw(t, "step")) % 3
		changed[name] = content(name, h.now[name])
	}
	if err := h.update(h.entries(changed), removed); err != nil {
		t.Fatal(err)
	}
	return names
}

func (c *typeCache) entries(set resource.Set) []*entry {
	var all []*entry
	for name, r := range set {
		all = append(all, c.newEntry(name, r))
	}
	return all
}

// version is that of a resource that is there.
func (h *holding) version(t *rapid.T, name string) string {
	e, there := h.get(name)
	if !there {
		return ""
	}
	r, err := e.packed()
	if err != nil {
		t.Fatal(err)
	}
	return r.GetVersion()
}

const (
	Cds = resourcev3.ClusterType
	Eds = resourcev3.EndpointType
)

var someNames = []string{"a", "b", "c", "d", "e"}

// deltaClient is what a client of the delta protocol and go-control-plane's
// server do, one step at a time.
type deltaClient struct {
	in     *holding
	sub    stream.Subscription
	at     position
	cancel func()
	to     chan cache.DeltaResponse
	wire   []*discovery.DeltaDiscoveryResponse // sent and not read yet

	follows map[string]bool
	all     bool
	legacy  bool // it named nothing yet: go-control-plane has it follow all then
	knows   map[string]string
	due     map[string]bool // changed or asked for since it was sent
}

func (c *deltaClient) connect(t *rapid.T, names []string) {
	if c.cancel != nil {
		c.cancel()
	}
	initial := maps.Clone(c.knows)
	*c = deltaClient{in: c.in, knows: c.knows, to: make(chan cache.DeltaResponse, 2), follows: make(map[string]bool), due: make(map[string]bool)}
	c.all, c.legacy = len(names) == 0, len(names) == 0
	c.follow(names)
	if c.all {
		c.follow([]string{wildcard})
	}
	c.sub = stream.NewDeltaSubscription(names, nil, initial, true)
	c.watch(t, &cache.DeltaRequest{TypeUrl: Eds, ResourceNamesSubscribe: names})
}

func (c *deltaClient) follow(names []string) {
	for _, name := range names {
		if name == wildcard {
			c.all = true
			for _, name := range someNames {
				c.due[name] = true
			}
			continue
		}
		c.follows[name], c.due[name] = true, true
	}
}

func (c *deltaClient) watch(t *rapid.T, r *cache.DeltaRequest) {
	cancel, err := c.in.watchDelta(r, c.sub, &c.at, c.to)
	if err != nil {
		t.Fatal(err)
	}
	c.cancel = func() {
		if cancel != nil {
			cancel()
		}
	}
}

// send is what the server does with what the cache has for it.
func (c *deltaClient) send(t *rapid.T) {
	for len(c.to) > 0 {
		r := <-c.to
		out, err := r.GetDeltaDiscoveryResponse()
		if err != nil {
			t.Fatal(err)
		}
		c.sub.SetReturnedResources(r.GetReturnedResources())
		c.wire = append(c.wire, out)
		for _, one := range out.GetResources() {
			if !c.due[one.GetName()] {
				t.Fatalf("sent %s, which has not changed since it was sent", one.GetName())
			}
			if !c.all && !c.follows[one.GetName()] {
				t.Fatalf("sent %s, which is not followed", one.GetName())
			}
			delete(c.due, one.GetName())
		}
	}
}

// request is one of the client, with names that it wants or wants no longer.
func (c *deltaClient) request(t *rapid.T, more, less []string) {
	c.send(t)
	c.cancel()
	c.follow(more)
	c.legacy = c.legacy && len(more) == 0
	for _, name := range less {
		if c.legacy {
			break
		}
		if name == wildcard {
			c.all = false
		}
		delete(c.follows, name)
		c.due[name] = true
	}
	if !c.all { // what is followed no longer is dropped
		maps.DeleteFunc(c.knows, func(name, _ string) bool { return !c.follows[name] })
	}
	c.sub.UpdateResourceSubscriptions(more, less)
	c.watch(t, &cache.DeltaRequest{TypeUrl: Eds, ResponseNonce: "1", ResourceNamesSubscribe: more, ResourceNamesUnsubscribe: less})
}

// read takes what was sent first, and answers.
func (c *deltaClient) read(t *rapid.T) {
	c.send(t)
	if len(c.wire) == 0 {
		return
	}
	r := c.wire[0]
	c.wire = c.wire[1:]
	for _, one := range r.GetResources() {
		if c.all || c.follows[one.GetName()] {
			c.knows[one.GetName()] = one.GetVersion()
		}
	}
	for _, name := range r.GetRemovedResources() {
		delete(c.knows, name)
	}
	c.request(t, nil, nil)
}

// settle reads all there is, and wants the client to know what it follows.
func (c *deltaClient) settle(t *rapid.T) {
	for c.send(t); len(c.wire) > 0; c.send(t) {
		c.read(t)
	}
	for _, name := range someNames {
		want := ""
		if c.all || c.follows[name] {
			want = c.in.version(t, name)
		}
		if c.knows[name] != want {
			t.Fatalf("the client has %q of %s, want %q; it follows %v, all %t", c.knows[name], name, want, c.follows, c.all)
		}
	}
}

// Whatever happens in whichever order, a client has what it follows once it has
// read all, and is sent nothing twice that it did not ask for.
func TestTypeCache_anyOrderDelta_sendsAllAndNothingTwice(t *testing.T) {
	names := rapid.SliceOfNDistinct(rapid.SampledFrom(append([]string{wildcard}, someNames...)), 0, 3, rapid.ID)
	rapid.Check(t, func(t *rapid.T) {
		h := &holding{newTypeCache(resource.Type{Name: "endpoints", URL: Eds}, "p-", resource.Set{"a": content("a", 0)}), map[string]uint32{"a": 0}}
		var clients []*deltaClient
		for range 2 {
			c := &deltaClient{in: h, knows: make(map[string]string)}
			c.connect(t, names.Draw(t, "names"))
			clients = append(clients, c)
		}
		one := func(t *rapid.T) *deltaClient { return rapid.SampledFrom(clients).Draw(t, "client") }
		t.Repeat(map[string]func(*rapid.T){
			"publish": func(t *rapid.T) {
				for _, c := range clients {
					c.send(t)
				}
				for _, name := range h.publish(t) {
					for _, c := range clients {
						c.due[name] = true
					}
				}
			},
			"ask": func(t *rapid.T) {
				more, less := names.Draw(t, "more"), names.Draw(t, "less")
				c := one(t)
				c.request(t, more, slices.DeleteFunc(less, func(name string) bool { return slices.Contains(more, name) }))
			},
			"read":    func(t *rapid.T) { one(t).read(t) },
			"settle":  func(t *rapid.T) { one(t).settle(t) },
			"again":   func(t *rapid.T) { c := one(t); c.settle(t); c.connect(t, names.Draw(t, "names")) },
			"forgets": func(t *rapid.T) { c := one(t); c.knows = make(map[string]string); c.connect(t, nil) },
		})
		for _, c := range clients {
			c.settle(t)
			c.cancel()
		}
		if n := len(h.deltaWatches) + len(h.sotwWatches); n > 0 {
			t.Fatalf("%d watches are left", n)
		}
	})
}

// sotwClient is the same for the state-of-the-world protocol, beside a
// LinearCache of go-control-plane that is told the same.
type sotwClient struct {
	watch  func(*cache.Request, cache.Subscription, chan cache.Response) (func(), error)
	url    string
	sub    stream.Subscription
	cancel func()
	to     chan cache.Response
	last   string
}

func (c *sotwClient) request(t *rapid.T, first bool, names []string, refused bool) {
	r := &cache.Request{TypeUrl: c.url, VersionInfo: c.last, ResourceNames: names}
	if first {
		c.sub = stream.NewSotwSubscription(names, true)
	} else {
		c.cancel()
		c.sub.SetResourceSubscription(names)
		if refused {
			r.ErrorDetail = &status.Status{Message: "no"}
		}
	}
	cancel, err := c.watch(r, c.sub, c.to)
	if err != nil {
		t.Fatal(err)
	}
	c.cancel = func() {
		if cancel != nil {
			cancel()
		}
	}
}

// next is what is sent, by name and content; nil if nothing is.
func (c *sotwClient) next(t *rapid.T, names []string) []string {
	select {
	case r := <-c.to:
		out, err := r.GetDiscoveryResponse()
		if err != nil {
			t.Fatal(err)
		}
		c.last = out.GetVersionInfo()
		c.sub.SetReturnedResources(r.GetReturnedResources())
		got := []string{} // empty is something, too
		for _, one := range out.GetResources() {
			got = append(got, fmt.Sprintf("%x", one.GetValue()))
		}
		slices.Sort(got)
		c.request(t, false, names, false)
		return got
	default:
		return nil
	}
}

// The state-of-the-world protocol is answered as by go-control-plane's LinearCache,
// for types that are told whole and for others.
func TestTypeCache_stateOfTheWorld_answersAsALinearCache(t *testing.T) {
	names := rapid.SliceOfNDistinct(rapid.SampledFrom(append([]string{wildcard}, someNames...)), 0, 3, rapid.ID)
	for _, url := range []string{Eds, Cds} {
		rapid.Check(t, func(t *rapid.T) {
			ours, theirs := newTypeCache(resource.Type{Name: "any", URL: url}, "p-", nil), cache.NewLinearCache(url, cache.WithVersionPrefix("p-"))
			h := &holding{ours, make(map[string]uint32)}
			a := &sotwClient{watch: ours.watchSotw, url: url, to: make(chan cache.Response, 1)}
			b := &sotwClient{watch: theirs.CreateWatch, url: url, to: make(chan cache.Response, 1)}
			asked := names.Draw(t, "first")
			both := func(do func(*sotwClient)) { do(a); do(b) }
			same := func(t *rapid.T) {
				for {
					got, want := a.next(t, asked), b.next(t, asked)
					if !slices.Equal(got, want) || (got == nil) != (want == nil) {
						t.Fatalf("sent %v, want %v", got, want)
					}
					if got == nil {
						return
					}
				}
			}
			both(func(c *sotwClient) { c.request(t, true, asked, false) })
			same(t)
			t.Repeat(map[string]func(*rapid.T){
				"publish": func(t *rapid.T) {
					before := maps.Clone(h.now)
					h.publish(t)
					changed, removed := make(map[string]types.Resource), []string(nil)
					for _, name := range someNames {
						n, there := h.now[name]
						was, had := before[name]
						switch {
						case there && (!had || n != was):
							changed[name] = content(name, n)
						case had && !there:
							removed = append(removed, name)
						}
					}
					if err := theirs.UpdateResources(changed, removed); err != nil {
						t.Fatal(err)
					}
					same(t)
				},
				"ask": func(t *rapid.T) {
					asked = names.Draw(t, "names")
					both(func(c *sotwClient) { c.request(t, false, asked, false) })
					same(t)
				},
			})
		})
	}
}

// A rejection is answered by something new only, from the first on.
func TestTypeCache_rejectedResource_sentOnlyWhenItChanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := &holding{newTypeCache(resource.Type{Name: "endpoints", URL: Eds}, "p-", resource.Set{"a": content("a", 0)}), map[string]uint32{"a": 0}}
		c := &sotwClient{watch: h.watchSotw, url: Eds, to: make(chan cache.Response, 1)}
		c.request(t, true, []string{"a"}, false)
		r := <-c.to
		c.sub.SetReturnedResources(r.GetReturnedResources())
		c.request(t, false, []string{"a"}, true)
		if len(c.to) != 0 {
			t.Fatal("the same is sent again")
		}
		if err := h.update(h.entries(resource.Set{"b": content("b", 0)}), nil); err != nil {
			t.Fatal(err)
		}
		if len(c.to) != 0 {
			t.Fatal("another resource has it sent again")
		}
		if err := h.update(h.entries(resource.Set{"a": content("a", 1)}), nil); err != nil {
			t.Fatal(err)
		}
		if len(c.to) != 1 {
			t.Fatal("something new is not sent")
		}
	})
}

// What is remembered of names that are gone is bounded. A client that was told of
// nothing since before must begin anew; one that waits hears all.
func TestTypeCache_manyRemoved_compacted(t *testing.T) {
	many := make(resource.Set)
	var names []string
	for i := range maxRemoved + 5 {
		name := fmt.Sprintf("s%05d", i)
		names, many[name] = append(names, name), content(name, 0)
	}
	c := newTypeCache(resource.Type{Name: "endpoints", URL: Eds}, "p-", many)
	var waiting, late deltaClient
	for _, client := range []*deltaClient{&waiting, &late} {
		client.sub, client.to = stream.NewDeltaSubscription(nil, nil, nil, true), make(chan cache.DeltaResponse, 2)
		if _, err := c.watchDelta(&cache.DeltaRequest{TypeUrl: Eds}, client.sub, &client.at, client.to); err != nil {
			t.Fatal(err)
		}
		client.sub.SetReturnedResources((<-client.to).GetReturnedResources())
	}
	again := &cache.DeltaRequest{TypeUrl: Eds, ResponseNonce: "1"}
	if _, err := c.watchDelta(again, waiting.sub, &waiting.at, waiting.to); err != nil {
		t.Fatal(err)
	}
	if err := c.update(nil, names); err != nil {
		t.Fatal(err)
	}
	out, err := (<-waiting.to).GetDeltaDiscoveryResponse()
	if err != nil || len(out.GetRemovedResources()) != len(names) {
		t.Errorf("who waited heard of %d that are gone, want %d (%v)", len(out.GetRemovedResources()), len(names), err)
	}
	if c.removed != maxRemoved || len(c.byName) != maxRemoved || c.order.Len() != maxRemoved {
		t.Errorf("%d are remembered, want %d", c.removed, maxRemoved)
	}
	// It was told of version 0, and version 1 is what is forgotten in part.
	if _, err := c.watchDelta(again, late.sub, &late.at, late.to); grpcstatus.Code(err) != codes.Unavailable {
		t.Errorf("who is too far behind gets %v", err)
	}
}

// A client that follows few names costs a look at those, be it that all others
// changed.
func TestTypeCache_fewNamesAmongManyChanges_found(t *testing.T) {
	c := newTypeCache(resource.Type{Name: "endpoints", URL: Eds}, "p-", resource.Set{"a": content("a", 0)})
	many := resource.Set{"a": content("a", 1)}
	for i := range 100 {
		name := fmt.Sprintf("s%d", i)
		many[name] = content(name, 0)
	}
	if err := c.update(c.entries(many), nil); err != nil {
		t.Fatal(err)
	}
	sub := stream.NewDeltaSubscription([]string{"a", "nobody"}, nil, nil, true)
	if found := c.changedSince(0, sub); len(found) != 1 || found[0].name != "a" {
		t.Errorf("found %v", found)
	}
	if found := c.changedSince(1, sub); len(found) != 0 {
		t.Errorf("found %v after the last version", found)
	}
}
