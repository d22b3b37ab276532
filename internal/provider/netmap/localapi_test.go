package netmap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tailscale.com/client/local"
	"tailscale.com/ipn"
	"tailscale.com/ipn/ipnstate"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"

	"github.com/tailxds/tailxds/internal/provider"
	"github.com/tailxds/tailxds/internal/topology"
)

// fakeNode is a local API that fails as a real one does not on demand.
type fakeNode struct {
	*httptest.Server
	local   *local.Client
	status  func(w http.ResponseWriter)
	metrics func(w http.ResponseWriter)
	Node    func(w http.ResponseWriter)
	whois   func(w http.ResponseWriter)
	bus     func(w http.ResponseWriter, r *http.Request)
}

func newFakeNode(t *testing.T) *fakeNode {
	f := &fakeNode{
		status: writes(running(peerStatus(1))), metrics: text("localbackend_update_packet_filter 0\n"),
		Node: writes(map[string]any{}), whois: writes(map[string]any{}),
		bus: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch strings.TrimPrefix(r.URL.Path, "/localapi/v0/") {
		case "status":
			f.status(w)
		case "metrics":
			f.metrics(w)
		case "debug":
			f.Node(w)
		case "whois":
			f.whois(w)
		case "watch-ipn-bus":
			f.bus(w, r)
		default:
			http.NotFound(w, r)
		}
	}))
	inner := &http.Transport{}
	t.Cleanup(func() { inner.CloseIdleConnections(); f.Close() })
	f.local = &local.Client{OmitAuth: true, Transport: transport(func(r *http.Request) (*http.Response, error) {
		r = r.Clone(r.Context())
		r.URL.Host = f.Listener.Addr().String()
		return inner.RoundTrip(r)
	})}
	return f
}

func text(s string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { _, _ = io.WriteString(w, s) }
}

func status(code int, s string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { w.WriteHeader(code); _, _ = io.WriteString(w, s) }
}

func writes(v any) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { _ = json.NewEncoder(w).Encode(v) }
}

func running(peers ...*ipnstate.PeerStatus) *ipnstate.Status {
	s := &ipnstate.Status{
		BackendState: ipn.Running.String(), Self: &ipnstate.PeerStatus{Online: true, InNetworkMap: true},
		Peer: map[key.NodePublic]*ipnstate.PeerStatus{},
	}
	for _, p := range peers {
		s.Peer[key.NewNode().Public()] = p
	}
	return s
}

func peerStatus(id int) *ipnstate.PeerStatus {
	return &ipnstate.PeerStatus{ID: tailcfg.StableNodeID(fmt.Sprint("n", id)), NodeID: tailcfg.NodeID(id), Online: true}
}

// Whatever the node answers but a whole netmap is an error.
func TestList_badAnswer_isAnError(t *testing.T) {
	state := func(change func(*ipnstate.Status)) func(http.ResponseWriter) {
		s := running(peerStatus(1))
		change(s)
		return writes(s)
	}
	for name, c := range map[string]struct {
		fault func(*fakeNode)
		says  string
	}{
		"status fails":      {func(f *fakeNode) { f.status = status(500, "boom") }, "boom"},
		"status is cut":     {func(f *fakeNode) { f.status = text(`{"BackendState":"Running","Peer":{`) }, "read the netmap"},
		"status is empty":   {func(f *fakeNode) { f.status = text("") }, "read the netmap"},
		"status is null":    {func(f *fakeNode) { f.status = text("null") }, "no status"},
		"starting":          {func(f *fakeNode) { f.status = state(func(s *ipnstate.Status) { s.BackendState = "Starting" }) }, "state Starting"},
		"stopped":           {func(f *fakeNode) { f.status = state(func(s *ipnstate.Status) { s.BackendState = "Stopped" }) }, "state Stopped"},
		"logged out":        {func(f *fakeNode) { f.status = state(func(s *ipnstate.Status) { s.BackendState = "NeedsLogin" }) }, "auth key"},
		"not approved":      {func(f *fakeNode) { f.status = state(func(s *ipnstate.Status) { s.BackendState = "NeedsMachineAuth" }) }, "admin to approve"},
		"no self":           {func(f *fakeNode) { f.status = state(func(s *ipnstate.Status) { s.Self = nil }) }, "no netmap"},
		"not in the netmap": {func(f *fakeNode) { f.status = state(func(s *ipnstate.Status) { s.Self.InNetworkMap = false }) }, "no netmap"},
		"no policy":         {func(f *fakeNode) { f.Node = status(400, "no netmap") }, "packet filter"},
		"policy is cut":     {func(f *fakeNode) { f.Node = text(`{"PacketFilterRules":[{`) }, "packet filter"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeNode(t)
			c.fault(f)
			for _, src := range []provider.Source{New(f.local, quiet()), provider.WithGrants(listOf{{ID: "1", Online: true}}, New(f.local, quiet()))} {
				devices, err := src.List(t.Context())
				if err == nil || devices != nil || (!strings.Contains(err.Error(), c.says) && !strings.Contains(err.Error(), "node's status")) {
					t.Errorf("%T: got %v, %v", src, devices, err)
				}
			}
		})
	}
}

// A look-up that fails must not let a device lose its grants.
func TestAddGrants_whoIsFails_keepsGrants(t *testing.T) {
	f := newFakeNode(t)
	rule := policy(`{"weight":2}`, &tailcfg.Node{})[0]
	rule.SrcIPs = []string{"100.64.0.0/10"}
	devices := func() []topology.Device { return []topology.Device{{ID: "1", Addresses: []string{"100.64.0.1"}}} }
	f.Node = writes(map[string]any{"PacketFilterRules": []tailcfg.FilterRule{rule}})
	status100 := running()
	status100.TailscaleIPs = append(status100.TailscaleIPs, addr("100.64.0.9"))
	f.status = writes(status100)
	granted := writes(map[string]any{"CapMap": tailcfg.PeerCapMap{topology.Capability: {`{"weight": 2}`}}})
	src := provider.WithGrants(listOf(devices()), New(f.local, quiet()))
	for _, step := range []struct {
		name  string
		whois func(http.ResponseWriter)
		fails bool
		want  string
	}{
		{"fails at first", status(500, "boom"), true, ""},
		{"not shown yet", status(404, ""), false, ""},
		{"granted", granted, false, `{"weight":2}`},
		{"remembered while the rules stay", status(500, "boom"), false, `{"weight":2}`},
	} {
		f.whois = step.whois
		got, err := src.List(t.Context())
		if step.fails != (err != nil) {
			t.Fatalf("%s: %v", step.name, err)
		}
		if err == nil && (step.want == "") != (got[0].Grants == nil) || err == nil && step.want != "" && string(got[0].Grants[0]) != step.want {
			t.Errorf("%s: %s", step.name, got[0].Grants)
		}
	}
	// The rules change: what was granted is asked again, and kept meanwhile.
	rule.CapGrant[0].CapMap = tailcfg.PeerCapMap{topology.Capability: {`{"weight":3}`}}
	f.Node = writes(map[string]any{"PacketFilterRules": []tailcfg.FilterRule{rule}})
	if _, err := src.List(t.Context()); err == nil {
		t.Error("a failed look-up was taken for an answer")
	}
	f.whois = status(404, "")
	if got, err := src.List(t.Context()); err != nil || len(got[0].Grants) != 1 {
		t.Errorf("not shown for a moment: %v %v", got, err)
	}
	// The node may not have applied what it lists: then it is asked again.
	f.whois = granted
	if got, err := src.List(t.Context()); err != nil || string(got[0].Grants[0]) != `{"weight":2}` {
		t.Errorf("%v %v", got, err)
	}
	f.whois = writes(map[string]any{"CapMap": rule.CapGrant[0].CapMap})
	if got, err := src.List(t.Context()); err != nil || string(got[0].Grants[0]) != `{"weight":3}` {
		t.Errorf("%v %v", got, err)
	}
}

// A watch that falls behind, is closed, cut or refused begins again, and takes
// everything anew: what was missed between is listed.
func TestWatch_busEnds_beginsAgain(t *testing.T) {
	for name, end := range map[string]string{
		"fell behind": `{"ErrMessage":"IPN bus consumer fell behind; closing watch"}` + "\n",
		"closed":      "",
		"cut":         `{"PeersChanged":[{"ID":`,
		"nonsense":    "hello\n",
		"netmap anew": `{"SelfChange":{"ID":1}}` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeNode(t)
			watches := 0
			f.bus = func(w http.ResponseWriter, r *http.Request) {
				watches++
				first := running(peerStatus(watches))
				writes(ipn.Notify{InitialStatus: first})(w)
				if watches == 1 {
					_, _ = io.WriteString(w, end)
					return
				}
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			}
			src := New(f.local, quiet())
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			woken, done := make(chan struct{}, 10), make(chan struct{})
			go func() { defer close(done); src.Watch(ctx, func() { woken <- struct{}{} }) }()
			for {
				select {
				case <-woken:
				case <-ctx.Done():
					t.Fatal("what was missed is never seen")
				}
				if devices, whole := src.peers.list(); whole && devices[0].ID == "n2" {
					break
				}
			}
			cancel()
			<-done
			if _, whole := src.peers.list(); whole {
				t.Error("nobody watches, but the peers are called whole")
			}
		})
	}
}

// A filter asks for a list if it is another than the last, wherever it came with.
func TestFiltersChanged_anotherPolicy_isNoticed(t *testing.T) {
	f := newFakeNode(t)
	var filters atomic.Int64
	filters.Store(3)
	f.metrics = func(w http.ResponseWriter) { text(fmt.Sprintf("%s %d\n", filterMetric, filters.Load()))(w) }
	rules := func(weight int, own string) map[string]any {
		return map[string]any{
			"PacketFilterRules": policy(fmt.Sprintf(`{"weight":%d}`, weight), &tailcfg.Node{}),
			"SelfNode":          map[string]any{"Addresses": []string{own}},
		}
	}
	const own, another = "100.64.0.9/32", "100.64.0.10/32"
	f.Node = writes(rules(1, own))
	f.bus = func(w http.ResponseWriter, r *http.Request) {
		writes(ipn.Notify{InitialStatus: running(peerStatus(1))})(w)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	src := New(f.local, quiet())
	if err := src.watchOnceUntilWoken(t); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name string
		more int64 // filters that came
		Node map[string]any
		asks bool
	}{
		{"what came with the first netmap", 0, rules(1, own), false},
		{"another filter", 1, rules(2, own), true},
		{"the same once more", 1, rules(2, own), false},
		{"the same for another address", 1, rules(2, another), true},
		{"one that is not counted", 0, rules(3, another), false},
	} {
		filters.Add(step.more)
		f.Node = writes(step.Node)
		version := src.policy.version.Load()
		if asks := src.filtersChanged(t.Context()); asks != step.asks || (src.policy.version.Load() != version) != step.asks {
			t.Errorf("%s asks for a list: %t", step.name, asks)
		}
	}
	f.Node = status(500, "boom")
	filters.Add(1)
	if version := src.policy.version.Load(); !src.filtersChanged(t.Context()) || src.policy.version.Load() == version {
		t.Error("a filter that can't be read is taken for the last")
	}
	f.metrics = status(500, "boom")
	if src.filtersChanged(t.Context()) {
		t.Error("a count that failed is taken for one")
	}
}

// While it watches, the node's last status serves, until the node changes its state;
// and a policy that can't be read may have changed.
func TestList_whileWatching_usesTheLastStatus(t *testing.T) {
	f := newFakeNode(t)
	f.status = status(500, "boom")
	events := make(chan ipn.Notify)
	f.bus = func(w http.ResponseWriter, r *http.Request) {
		for {
			select {
			case event := <-events:
				writes(event)(w)
				w.(http.Flusher).Flush()
			case <-r.Context().Done():
				return
			}
		}
	}
	src := New(f.local, quiet())
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	woken, done := make(chan struct{}, 10), make(chan struct{})
	go func() {
		defer close(done)
		_ = src.watchOnce(ctx, func() { woken <- struct{}{} }) // it ends with the test
	}()
	defer func() { cancel(); <-done }()
	lists := func(what string, event ipn.Notify, says string) {
		t.Helper()
		version := src.policy.version.Load()
		select {
		case events <- event:
		case <-ctx.Done():
			t.Fatalf("%s: the watch has ended", what)
		}
		select {
		case <-woken:
		case <-ctx.Done():
			t.Fatalf("%s: nothing asks for a list", what)
		}
		if _, err := src.List(ctx); says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("%s: %v, want %q", what, err, says)
		}
		if event.State == nil && src.policy.version.Load() == version {
			t.Errorf("%s: the policy is not read again", what)
		}
	}
	lists("the status that began the watch", ipn.Notify{InitialStatus: running(peerStatus(1))}, "")
	// The fake node has no answer to the question for the policy of a whole netmap.
	lists("a whole netmap", ipn.Notify{SelfChange: &tailcfg.Node{}, PeersChanged: []*tailcfg.Node{{ID: 1, StableID: "n1", Online: new(true)}}}, "")
	lists("a new state", ipn.Notify{State: new(ipn.NeedsLogin)}, "boom")
}

// The link is asked after, and a node that does not answer tells nothing of it.
func TestLinkChanged_statusOfSelf_isFollowed(t *testing.T) {
	f := newFakeNode(t)
	src := New(f.local, quiet())
	up, down := running(), running()
	down.Self.Online = false
	for _, step := range []struct {
		name            string
		status          func(http.ResponseWriter)
		changed, linkUp bool
	}{
		{"up, as it was taken to be", writes(up), false, true},
		{"down", writes(down), true, false},
		{"still down", writes(down), false, false},
		{"no answer", status(500, "boom"), false, false},
		{"no status", text("null"), false, false},
		{"nothing of itself", writes(&ipnstate.Status{}), false, false},
		{"up again", writes(up), true, true},
	} {
		f.status = step.status
		if changed := src.linkChanged(t.Context()); changed != step.changed || src.LinkUp() != step.linkUp {
			t.Errorf("%s: changed %t, up %t", step.name, changed, src.LinkUp())
		}
	}
}

// watchOnceUntilWoken watches until the first wake.
func (n *Node) watchOnceUntilWoken(t *testing.T) error {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := n.watchOnce(ctx, cancel); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }
