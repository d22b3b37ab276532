package netmap

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"tailscale.com/tailcfg"

	"github.com/tailxds/tailxds/internal/provider"
	"github.com/tailxds/tailxds/internal/topology"
)

func has(n int) func([]topology.Device) bool {
	return func(d []topology.Device) bool { return len(d) == n }
}

// What the coordination server says of a peer, in any of its ways, is listed.
func TestList_peersChange_areFollowed(t *testing.T) {
	n := newTailnet(t)
	src := New(n.local, quiet())
	a, b := n.peer(1, "tag:weight-1", "tag:region-west"), n.peer(2)
	b.KeyExpiry = time.Date(2040, 1, 2, 3, 4, 5, 678, time.UTC)
	expires := b.KeyExpiry.Truncate(time.Second)

	got := n.follow(src, func() { n.say(&tailcfg.MapResponse{PeersChanged: []*tailcfg.Node{a, b}}) }, has(2))
	want := []topology.Device{
		{ID: "n1", Name: "west-1", Addresses: []string{"100.100.0.1", "fd7a:115c:a1e0::1001"}, Tags: []string{"tag:weight-1", "tag:region-west"}, Online: true},
		{ID: "n2", Name: "west-2", Addresses: []string{"100.100.0.2", "fd7a:115c:a1e0::1002"}, Online: true, Expires: &expires},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	// Without a watch the list is read whole, and says the same.
	got, err := src.List(t.Context())
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}

	retagged := a.Clone()
	retagged.Tags = []string{"tag:weight-5"}
	n.follow(src, func() { n.say(&tailcfg.MapResponse{PeersChanged: []*tailcfg.Node{retagged}}) },
		func(d []topology.Device) bool { return len(d) == 2 && cmp.Equal(d[0].Tags, []string{"tag:weight-5"}) })
	n.follow(src, func() {
		n.say(&tailcfg.MapResponse{PeersChangedPatch: []*tailcfg.PeerChange{{NodeID: a.ID, Online: new(false)}}})
	}, func(d []topology.Device) bool { return len(d) == 2 && !d[0].Online && d[1].Online })
	n.follow(src, func() {
		n.say(&tailcfg.MapResponse{OnlineChange: map[tailcfg.NodeID]bool{a.ID: true}})
	}, func(d []topology.Device) bool { return len(d) == 2 && d[0].Online })
	n.follow(src, func() { n.say(&tailcfg.MapResponse{PeersRemoved: []tailcfg.NodeID{b.ID}}) }, has(1))

	// A whole new map names those that are, and not those that are gone.
	c := n.peer(3)
	n.follow(src, func() {
		n.say(&tailcfg.MapResponse{Node: n.control.Node(n.self), Peers: []*tailcfg.Node{c}, DERPMap: n.control.DERPMap, Domain: "example"})
	}, func(d []topology.Device) bool { return len(d) == 1 && d[0].ID == "n3" })
}

// A newcomer that nobody can send to yet is not online, whoever lists it; as soon
// as it has told a relay or an address, it is, and it stays so.
func TestList_pendingPeer_isOnlineOnceReachable(t *testing.T) {
	n := newTailnet(t)
	byRelay, byAddress, whole := n.peer(1), n.peer(2), n.peer(3)
	for _, newcomer := range []*tailcfg.Node{byRelay, byAddress, whole} {
		newcomer.HomeDERP = 0
	}
	told := whole.Clone()
	told.Endpoints = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:41641")}
	api := listOf{
		{ID: "1", Addresses: []string{"100.100.0.1"}, Online: true},
		{ID: "2", Addresses: []string{"fd7a:115c:a1e0::1002", "100.100.0.2"}, Online: true},
		{ID: "3", Addresses: []string{"100.100.0.3"}, Online: true},
		{ID: "4", Addresses: []string{"100.100.0.99"}, Online: true}, // not shown to us
	}
	steps := []struct {
		say    *tailcfg.MapResponse
		online string
	}{
		{&tailcfg.MapResponse{PeersChanged: []*tailcfg.Node{byRelay, byAddress, whole}}, ""},
		{&tailcfg.MapResponse{PeersChangedPatch: []*tailcfg.PeerChange{{NodeID: byRelay.ID, DERPRegion: 1}}}, "1"},
		{&tailcfg.MapResponse{PeersChangedPatch: []*tailcfg.PeerChange{{NodeID: byAddress.ID, Endpoints: told.Endpoints}}}, "12"},
		{&tailcfg.MapResponse{PeersChanged: []*tailcfg.Node{told}}, "123"},
		{&tailcfg.MapResponse{PeersChanged: []*tailcfg.Node{whole}, PeersRemoved: []tailcfg.NodeID{byRelay.ID}}, "23"},
	}
	for name, c := range map[string]struct {
		src   provider.Source
		also  string // who is online in each list
		steps int
	}{
		"netmap": {New(n.local, quiet()), "", len(steps)},
		"an API": {provider.WithGrants(api, New(n.local, quiet())), "4", len(steps) - 1}, // it goes on listing all
	} {
		t.Run(name, func(t *testing.T) {
			reached := 0
			n.follow(c.src, func() { n.say(steps[0].say) }, func(devices []topology.Device) bool {
				online := ""
				for _, d := range devices {
					if d.Online {
						online += strings.TrimPrefix(d.ID, "n")
					}
				}
				if len(devices) == 0 || online != steps[reached].online+c.also {
					return false
				}
				if reached++; reached == c.steps {
					return true
				}
				n.say(steps[reached].say)
				return false
			})
		})
		n.follow(c.src, func() {
			n.say(&tailcfg.MapResponse{PeersRemoved: []tailcfg.NodeID{byRelay.ID, byAddress.ID, whole.ID}})
		}, func([]topology.Device) bool { return true })
	}
}

// While it is watched, a change costs a short status and not all peers.
func TestList_onePeerChanges_readsNoOthers(t *testing.T) {
	n := newTailnet(t)
	src := New(n.local, quiet())
	a := n.peer(1)
	n.follow(src, func() {
		n.say(&tailcfg.MapResponse{PeersChanged: []*tailcfg.Node{a, n.peer(2)}})
	}, has(2))
	n.follow(src, func() {
		n.calls.forget()
		n.say(&tailcfg.MapResponse{PeersRemoved: []tailcfg.NodeID{a.ID}})
	}, has(1))
	if whole := n.calls.of("status whole"); whole != 0 || n.calls.of("debug") != 0 {
		t.Errorf("a peer left, and everything was read: %v", n.calls.count)
	}
}

// A whole new netmap is listed with nothing asked of the node but its policy: it
// tells its status only when it has configured itself.
func TestWatch_wholeNetmap_isFollowed(t *testing.T) {
	n := newTailnet(t)
	src := New(n.local, quiet())
	a, b := n.peer(1, "tag:weight-1"), n.peer(2)
	whole := func(filter []tailcfg.FilterRule, peers ...*tailcfg.Node) func() {
		return func() {
			n.calls.forget()
			n.say(&tailcfg.MapResponse{
				Node: n.control.Node(n.self), Peers: peers, DERPMap: n.control.DERPMap, Domain: "example", PacketFilter: filter,
			})
		}
	}
	n.follow(src, func() { n.say(&tailcfg.MapResponse{PeersChanged: []*tailcfg.Node{a, b}}) }, has(2))
	heavier := a.Clone()
	heavier.Tags = []string{"tag:weight-2"}
	for _, step := range []struct {
		name string
		say  func()
		want func([]topology.Device) bool
	}{
		{"a tag", whole(tailcfg.FilterAllowAll, heavier, b), func(d []topology.Device) bool {
			return len(d) == 2 && cmp.Equal(d[0].Tags, heavier.Tags)
		}},
		{"a grant", whole(policy(`{"weight":7}`, b), heavier, b), func(d []topology.Device) bool {
			return len(d) == 2 && len(d[1].Grants) == 1 && string(d[1].Grants[0]) == `{"weight":7}`
		}},
		{"one is gone", whole(policy(`{"weight":7}`, b), b), func(d []topology.Device) bool { return len(d) == 1 && d[0].ID == "n2" }},
		{"one comes", whole(policy(`{"weight":7}`, b), b, a), has(2)},
	} {
		n.follow(src, step.say, step.want)
		if n.calls.of("status whole") != 0 || n.calls.of("watch-ipn-bus") != 0 {
			t.Errorf("%s: all peers were asked for: %v", step.name, n.calls.count)
		}
	}
}

// A change of the policy alone acts within a second, though it raises no event.
func TestWatch_policyAlone_wakesWithinASecond(t *testing.T) {
	n := newTailnet(t)
	src := New(n.local, quiet())
	a, b := n.peer(1, "tag:weight-1"), n.peer(2)
	n.follow(src, func() { n.say(&tailcfg.MapResponse{PeersChanged: []*tailcfg.Node{a, b}}) }, has(2))
	for _, object := range []string{`{"service":"hello","weight":2}`, `{"service":"hello","weight":3}`} {
		var said time.Time
		got := n.follow(src, func() {
			n.say(&tailcfg.MapResponse{PacketFilter: policy(object, a)})
			said = time.Now()
		}, func(d []topology.Device) bool { return len(d[0].Grants) == 1 && string(d[0].Grants[0]) == object })
		if took := time.Since(said); took > time.Second {
			t.Errorf("it took %v", took)
		}
		if got[1].Grants != nil {
			t.Errorf("granted to another: %s", got[1].Grants)
		}
	}
	got := n.follow(src, func() { n.say(&tailcfg.MapResponse{PacketFilter: tailcfg.FilterAllowAll}) },
		func(d []topology.Device) bool { return d[0].Grants == nil })
	if len(got) != 2 {
		t.Errorf("got %v", got)
	}
}

// A look-up is a round trip: one for each device that a changed rule names,
// and none for the others.
func TestGrants_ruleChanges_looksUpWhatChanged(t *testing.T) {
	n := newTailnet(t)
	src := New(n.local, quiet())
	var peers []*tailcfg.Node
	for i := range 20 {
		peers = append(peers, n.peer(i+1))
	}
	n.follow(src, func() { n.say(&tailcfg.MapResponse{PeersChanged: peers}) }, has(20))
	granted := func(weights map[string]int) func([]topology.Device) bool {
		return func(devices []topology.Device) bool {
			got := map[string]int{}
			for _, d := range devices {
				for _, g := range d.Grants {
					got[string(g)]++
				}
			}
			return cmp.Equal(got, weights)
		}
	}
	second := append(policy(`{"weight":1}`, peers[:11]...), policy(`{"service":"b"}`, peers[9:11]...)[0])
	for _, step := range []struct {
		name  string
		rules []tailcfg.FilterRule
		want  map[string]int
		whois int
	}{
		{"ten granted", policy(`{"weight":1}`, peers[:10]...), map[string]int{`{"weight":1}`: 10}, 10},
		{"an eleventh", policy(`{"weight":1}`, peers[:11]...), map[string]int{`{"weight":1}`: 11}, 1},
		{"a second service for two", second, map[string]int{`{"weight":1}`: 11, `{"service":"b"}`: 2}, 2},
		{"eight taken away", policy(`{"weight":1}`, peers[8:11]...), map[string]int{`{"weight":1}`: 3}, 2},
		{"one for all", policy(`{"weight":1}`, peers...), map[string]int{`{"weight":1}`: 20}, 17},
	} {
		n.follow(src, func() {
			n.calls.forget()
			n.say(&tailcfg.MapResponse{PacketFilter: step.rules})
		}, granted(step.want))
		if got := n.calls.of("whois"); got != step.whois {
			t.Errorf("%s: %d look-ups, want %d", step.name, got, step.whois)
		}
	}
	// A change that is no concern of the policy looks nobody up.
	n.follow(src, func() {
		n.calls.forget()
		n.say(&tailcfg.MapResponse{OnlineChange: map[tailcfg.NodeID]bool{peers[0].ID: false}})
	}, func(d []topology.Device) bool { return !d[0].Online })
	if got := n.calls.of("whois"); got != 0 {
		t.Errorf("a peer went offline: %d look-ups", got)
	}
}

// On a tailnet, the devices of an API carry their grants, and the netmap wakes.
func TestWithGrants_otherSource_carriesGrants(t *testing.T) {
	n := newTailnet(t)
	a := n.peer(1)
	src := provider.WithGrants(listOf{
		{ID: "1", Addresses: []string{"100.100.0.1"}, Online: true},
		{ID: "2", Addresses: []string{"100.100.0.99"}, Online: true}, // not shown to us
		{ID: "3", Addresses: []string{"rubbish"}},
		{ID: "4"},
	}, New(n.local, quiet()))
	got := n.follow(src, func() {
		n.say(&tailcfg.MapResponse{PeersChanged: []*tailcfg.Node{a}, PacketFilter: policy(`{"weight":7}`, a, n.peer(99))})
	}, func(d []topology.Device) bool { return d[0].Grants != nil })
	if len(got) != 4 || string(got[0].Grants[0]) != `{"weight":7}` || got[1].Grants != nil || got[2].Grants != nil || got[3].Grants != nil {
		t.Errorf("got %+v", got)
	}
	if !src.(interface{ LinkUp() bool }).LinkUp() {
		t.Error("the link is up")
	}
}

// Maps that no server should send cost nobody else anything.
func TestList_malformedMap_costsNoOtherDevice(t *testing.T) {
	n := newTailnet(t)
	src := New(n.local, quiet())
	good := n.peer(1, "tag:weight-1")
	bare := &tailcfg.Node{ID: 2000, StableID: "bare", Key: n.peer(2).Key}
	odd := n.peer(3, "", "tag:", "tag:weight-", strings.Repeat("x", 5000))
	odd.Addresses = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), {}}
	odd.Name, odd.Hostinfo = "", (&tailcfg.Hostinfo{Hostname: "by-host"}).View()
	odd.Online = nil
	got := n.follow(src, func() {
		n.say(&tailcfg.MapResponse{
			PeersChanged:      []*tailcfg.Node{good, bare, odd},
			PeersRemoved:      []tailcfg.NodeID{424242},
			PeersChangedPatch: []*tailcfg.PeerChange{{NodeID: 31337, Online: new(true)}},
			PacketFilter: append(policy(`{"weight":2}`, good), tailcfg.FilterRule{SrcIPs: []string{"nonsense"}, CapGrant: []tailcfg.CapGrant{{}}},
				policy(`"not an object"`, good)[0]),
		})
	}, func(d []topology.Device) bool { return len(d) == 3 })
	byID := map[string]topology.Device{}
	for _, d := range got {
		byID[d.ID] = d
	}
	if d := byID["n1"]; !d.Online || len(d.Addresses) != 2 {
		t.Errorf("the good one suffers: %+v", d)
	}
	if d := byID["n3"]; d.Name != "by-host" || len(d.Addresses) != 0 || d.Online {
		t.Errorf("got %+v", d)
	}
	if _, problems := topology.Build(got, topology.Rules{DefaultService: "server", DefaultPort: 8080}); len(problems) == 0 {
		t.Error("nobody hears of the odd one")
	}
}

// Without its coordination server the netmap grows old, and a list says so
// instead of passing it for news.
func TestList_linkDown_isAnError(t *testing.T) {
	n := newTailnet(t)
	src := New(n.local, quiet())
	n.follow(src, func() { n.say(&tailcfg.MapResponse{PeersChanged: []*tailcfg.Node{n.peer(1)}}) }, has(1))
	cut := &failing{Node: src}
	n.follow(cut, n.link.cut, func([]topology.Device) bool { return cut.err != nil })
	if !errors.Is(cut.err, errLinkDown) || src.LinkUp() {
		t.Errorf("link up: %v, error: %v", src.LinkUp(), cut.err)
	}
}

// failing is a netmap whose failure is kept and does not end the test.
type failing struct {
	*Node
	err error
}

func (f *failing) List(ctx context.Context) ([]topology.Device, error) {
	var devices []topology.Device
	devices, f.err = f.Node.List(ctx)
	return devices, nil
}

// A node whose key is no longer good has no netmap; that is no empty tailnet.
func TestList_loggedOut_isAnError(t *testing.T) {
	n := newTailnet(t)
	src := New(n.local, quiet())
	n.follow(src, func() { n.say(&tailcfg.MapResponse{PeersChanged: []*tailcfg.Node{n.peer(1)}}) }, has(1))
	if err := n.local.Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	devices, err := src.List(t.Context())
	if err == nil || devices != nil || !strings.Contains(err.Error(), "auth key") {
		t.Errorf("got %v, %v", devices, fmt.Sprint(err))
	}
}
