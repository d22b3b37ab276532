package netmap

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tailscale.com/client/local"
	"tailscale.com/ipn"
	"tailscale.com/ipn/ipnstate"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"

	"github.com/tailxds/tailxds/internal/topology"
)

// arrivals are a netmap and its watch of newcomers, in a bubble of faked time.
type arrivals struct {
	*Node
	woken chan struct{}
	tells map[int]func(http.ResponseWriter) // what a look-up of a peer tells
}

func newArrivals(t *testing.T) *arrivals {
	a := &arrivals{woken: make(chan struct{}, 100), tells: map[int]func(http.ResponseWriter){}}
	a.Node = New(&local.Client{OmitAuth: true, Transport: transport(a.lookUp)}, quiet())
	a.peers.start(&ipnstate.Status{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); a.watchPending(ctx, func() { a.woken <- struct{}{} }) }()
	t.Cleanup(func() { cancel(); <-done })
	return a
}

func (a *arrivals) lookUp(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	id, _ := strconv.Atoi(r.URL.Query().Get("id"))
	w := httptest.NewRecorder()
	if tell := a.tells[id]; tell != nil && r.URL.Path == "/localapi/v0/peer-by-id" {
		tell(w)
	} else {
		http.NotFound(w, r)
	}
	return w.Result(), nil
}

// event applies what the node's bus tells.
func (a *arrivals) event(event *ipn.Notify) {
	a.peers.apply(event)
	a.notifyPending()
}

// online names those that a list calls online.
func (a *arrivals) online() string {
	devices, _ := a.peers.list()
	var ids []string
	for _, d := range devices {
		if d.Online {
			ids = append(ids, strings.TrimPrefix(d.ID, "n"))
		}
	}
	slices.Sort(ids)
	return strings.Join(ids, "")
}

// await gives how long it takes until a wake lets a list call just these online.
func (a *arrivals) await(t *testing.T, want string) time.Duration {
	t.Helper()
	began := time.Now()
	for a.online() != want {
		select {
		case <-a.woken:
		case <-time.After(time.Minute):
			t.Fatalf("online are %q after a minute, not %q", a.online(), want)
		}
	}
	return time.Since(began)
}

// node is a peer that is online and has told nothing of its way.
func node(id int) *tailcfg.Node {
	return &tailcfg.Node{
		ID: tailcfg.NodeID(id), StableID: tailcfg.StableNodeID("n" + strconv.Itoa(id)), Online: new(true),
		Addresses: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64, 0, byte(id)}), 32)},
	}
}

func byRelay(id int) *tailcfg.Node { n := node(id); n.HomeDERP = 1; return n }

func byAddress(id int) *tailcfg.Node {
	n := node(id)
	n.Endpoints = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:41641")}
	return n
}

// later answers with the one until the time is over, and with the other from then on.
func later(d time.Duration, first, then func(http.ResponseWriter)) func(http.ResponseWriter) {
	from := time.Now().Add(d)
	return func(w http.ResponseWriter) {
		if time.Now().Before(from) {
			first(w)
		} else {
			then(w)
		}
	}
}

// A newcomer waits until it has told its way, and a quarter of a second more; 10 s at
// most. One of which nothing can be learned does not wait.
func TestPending_announcesAWay_isOnlineSoonAfter(t *testing.T) {
	const ms = time.Millisecond
	pending := writes(node(1))
	for name, c := range map[string]struct {
		first       func(http.ResponseWriter)
		lasts       time.Duration
		then        func(http.ResponseWriter)
		atLeast, by time.Duration
	}{
		"a relay at once":             {nil, 0, writes(byRelay(1)), 250 * ms, 400 * ms},
		"an address at once":          {nil, 0, writes(byAddress(1)), 250 * ms, 400 * ms},
		"a relay after 3 s":           {pending, 3000 * ms, writes(byRelay(1)), 3250 * ms, 4250 * ms},
		"a relay, at the last moment": {pending, 9900 * ms, writes(byRelay(1)), 10000 * ms, 10500 * ms},
		"nothing":                     {nil, 0, pending, 10000 * ms, 10500 * ms},
		"null":                        {nil, 0, text("null"), 10000 * ms, 10500 * ms},
		"no such peer":                {nil, 0, status(404, ""), 0, 0},
		"an error":                    {nil, 0, status(500, "boom"), 0, 0},
		"an error after 2 s":          {pending, 2000 * ms, status(500, "boom"), 2000 * ms, 2500 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newArrivals(t)
				a.tells[1] = later(c.lasts, c.first, c.then)
				a.event(&ipn.Notify{PeersChanged: []*tailcfg.Node{node(1)}})
				if got := a.online(); got != "" {
					t.Errorf("%q is online before it was looked up", got)
				}
				if took := a.await(t, "1"); took < c.atLeast || took > c.by {
					t.Errorf("it took %v, not %v to %v", took, c.atLeast, c.by)
				}
			})
		})
	}
}

// The bounds of the wait belong to it.
func TestWait_bounds_areKept(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		began, told time.Duration // before now; 0 is not told
		over        bool
	}{
		"10 s":              {10 * time.Second, 0, true},
		"nearly 10 s":       {10*time.Second - 1, 0, false},
		"told 250 ms ago":   {time.Second, 250 * time.Millisecond, true},
		"told a bit later":  {time.Second, 250*time.Millisecond - 1, false},
		"told at 9.9 s":     {10 * time.Second, 100 * time.Millisecond, true},
		"it has just begun": {0, 0, false},
	} {
		w := wait{began: now.Add(-c.began)}
		if c.told > 0 {
			w.announced = now.Add(-c.told)
		}
		if got := w.over(now); got != c.over {
			t.Errorf("%s: over %t", name, got)
		}
	}
}

// Each newcomer has 10 s of its own, whoever waits already.
func TestPending_several_waitEachForItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newArrivals(t)
		a.tells[1], a.tells[2] = writes(node(1)), writes(node(2))
		a.event(&ipn.Notify{PeersChanged: []*tailcfg.Node{node(1)}})
		time.Sleep(6 * time.Second)
		second := time.Now()
		a.event(&ipn.Notify{PeersChanged: []*tailcfg.Node{node(2)}})
		if took := a.await(t, "1"); took < 4*time.Second || took > 5*time.Second {
			t.Errorf("the first waited %v more, not 4 s", took)
		}
		a.await(t, "12")
		if took := time.Since(second); took < 10*time.Second || took > 11*time.Second {
			t.Errorf("the second waited %v, not 10 s", took)
		}
	})
}

// Who leaves while it is looked up wakes nobody, and waits anew when it is back.
func TestPending_leaves_wakesNothing(t *testing.T) {
	gone := &ipn.Notify{PeersRemoved: []tailcfg.NodeID{1}}
	for name, leave := range map[string]*ipn.Notify{
		"removed": gone,
		"offline": {PeerChangedPatch: []*tailcfg.PeerChange{{NodeID: 1, Online: new(false)}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newArrivals(t)
				a.tells[1] = writes(node(1))
				join := &ipn.Notify{PeersChanged: []*tailcfg.Node{node(1)}}
				a.event(join)
				time.Sleep(7 * time.Second)
				a.event(leave)
				time.Sleep(time.Minute)
				if n := len(a.woken); n > 0 {
					t.Errorf("it woke %d times", n)
				}
				a.event(join)
				if took := a.await(t, "1"); took < 10*time.Second || took > 11*time.Second {
					t.Errorf("it waited %v when it was back, not 10 s", took)
				}
			})
		})
	}
	t.Run("in the middle of a look-up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := newArrivals(t)
			a.tells[1] = func(w http.ResponseWriter) {
				a.event(gone)
				w.WriteHeader(http.StatusNotFound)
			}
			a.event(&ipn.Notify{PeersChanged: []*tailcfg.Node{node(1)}})
			synctest.Wait()
			a.tells[1] = writes(node(1))
			a.event(&ipn.Notify{PeersChanged: []*tailcfg.Node{node(1)}})
			if n, online := len(a.woken), a.online(); n > 0 || online != "" {
				t.Errorf("it woke %d times, and when it was back %q is online", n, online)
			}
		})
	})
}

// Who is silent, and who is not any more, by what the bus told of it.
func TestPeers_events_decideWhatIsPending(t *testing.T) {
	changed := func(nodes ...*tailcfg.Node) *ipn.Notify { return &ipn.Notify{PeersChanged: nodes} }
	turns := func(online bool) *ipn.Notify {
		return &ipn.Notify{PeerChangedPatch: []*tailcfg.PeerChange{{NodeID: 1, Online: &online}}}
	}
	offline, removed := node(1), &ipn.Notify{PeersRemoved: []tailcfg.NodeID{1}}
	offline.Online = new(false)
	anew := func(relay string, peers ...int) *ipnstate.Status {
		s := running()
		for _, id := range peers {
			p := peerStatus(id)
			p.Relay, p.TailscaleIPs = relay, []netip.Addr{node(id).Addresses[0].Addr()}
			s.Peer[key.NewNode().Public()] = p
		}
		return s
	}
	for name, c := range map[string]struct {
		told   []any // events and statuses
		online string
	}{
		"joins without a way":                     {[]any{changed(node(1))}, ""},
		"joins with a relay":                      {[]any{changed(byRelay(1))}, "1"},
		"joins with an address":                   {[]any{changed(byAddress(1))}, "1"},
		"is told of before it is looked up":       {[]any{changed(node(1)), changed(byRelay(1))}, ""},
		"loses its way, once reached":             {[]any{changed(byRelay(1)), changed(node(1))}, "1"},
		"is back, once reached":                   {[]any{changed(byRelay(1)), turns(false), turns(true)}, "1"},
		"is back, never reached":                  {[]any{changed(node(1)), turns(false), turns(true)}, ""},
		"is back with a relay, never reached":     {[]any{changed(node(1)), turns(false), changed(byRelay(1))}, "1"},
		"comes online after it was listed":        {[]any{changed(offline), turns(true)}, ""},
		"joins again, once reached":               {[]any{changed(byRelay(1)), removed, changed(node(1))}, ""},
		"joins again with a relay":                {[]any{changed(node(1)), removed, changed(byRelay(1))}, "1"},
		"two join":                                {[]any{changed(node(1), byRelay(2), node(3))}, "2"},
		"a watch begins, without a way":           {[]any{anew("", 1, 2)}, ""},
		"a watch begins, with a relay":            {[]any{anew("nbg", 1, 2)}, "12"},
		"a watch begins anew, once reached":       {[]any{changed(byRelay(1)), anew("", 1, 2)}, "1"},
		"a watch begins anew, still silent":       {[]any{changed(node(1)), anew("nbg", 1, 2)}, "2"},
		"was away when a watch began, reached":    {[]any{changed(byRelay(1)), anew("nbg", 2), changed(node(1))}, "2"},
		"was away when a watch began, silent":     {[]any{changed(node(1)), anew("nbg", 2), changed(byRelay(1))}, "12"},
		"nobody is left when a watch begins anew": {[]any{changed(node(1)), anew("")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			a := &arrivals{Node: New(nil, quiet())}
			a.peers.start(running())
			for _, told := range c.told {
				switch told := told.(type) {
				case *ipn.Notify:
					a.event(told)
				case *ipnstate.Status:
					a.peers.stop()
					a.peers.start(told)
				}
			}
			if got := a.online(); got != c.online {
				t.Errorf("online are %q, want %q", got, c.online)
			}
		})
	}
}

// A source that lists devices under names of its own is hushed by their addresses:
// whatever it calls online, the silent are not. Others stay as they are.
func TestMarkPendingOffline_otherIDs_matchesByAddress(t *testing.T) {
	a := &arrivals{Node: New(nil, quiet())}
	a.peers.start(running())
	dual := node(1)
	dual.Addresses = append(dual.Addresses, netip.MustParsePrefix("fd7a:115c:a1e0::1/128"))
	listed := func() string {
		devices := []topology.Device{
			{ID: "four", Addresses: []string{"100.64.0.1"}, Online: true},
			{ID: "six", Addresses: []string{"10.0.0.1", "fd7a:115c:a1e0::1"}, Online: true},
			{ID: "other", Addresses: []string{"100.64.0.2"}, Online: true},
			{ID: "none", Online: true},
			{ID: "off", Addresses: []string{"100.64.0.3"}},
		}
		a.peers.markPendingOffline(devices)
		var ids []string
		for _, d := range devices {
			if d.Online {
				ids = append(ids, d.ID)
			}
		}
		return strings.Join(ids, " ")
	}
	if got := listed(); got != "four six other none" {
		t.Errorf("nobody is silent: %s are online", got)
	}
	a.event(&ipn.Notify{PeersChanged: []*tailcfg.Node{dual}})
	if got := listed(); got != "other none" {
		t.Errorf("one is silent: %s are online", got)
	}
	a.event(&ipn.Notify{PeersRemoved: []tailcfg.NodeID{dual.ID}})
	if got := listed(); got != "four six other none" {
		t.Errorf("it is gone: %s are online", got)
	}
}

// A list that is read between two watches calls nobody online whom the next watch
// would call silent: who is published must not go again.
func TestList_joinedBetweenTwoWatches_isPending(t *testing.T) {
	f := newFakeNode(t)
	src := New(f.local, quiet())
	old, newcomer, relayed := peerStatus(1), peerStatus(2), peerStatus(3)
	old.Relay, relayed.Relay = "lab", "lab"
	for i, p := range []*ipnstate.PeerStatus{old, newcomer, relayed} {
		p.TailscaleIPs = []netip.Addr{addr(fmt.Sprintf("100.64.0.%d", i+1))}
	}
	online := func() string {
		devices, err := src.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var ids string
		for _, d := range devices {
			if d.Online {
				ids += d.ID
			}
		}
		return ids
	}
	f.status = writes(running(newcomer))
	if got := online(); got != "n2" {
		t.Errorf("before anybody watches %q are online", got)
	}
	src.peers.start(running(old))
	src.peers.stop()
	f.status = writes(running(old, newcomer, relayed))
	if got := online(); got != "n1n3" {
		t.Errorf("between two watches %q are online", got)
	}
	src.peers.start(running(old, newcomer, relayed))
	if got := online(); got != "n1n3" {
		t.Errorf("after the next has begun %q are online", got)
	}
	src.peers.markReachable(newcomer.NodeID)
	src.peers.stop()
	if got := online(); got != "n1n2n3" {
		t.Errorf("when it can be reached %q are online", got)
	}
}
