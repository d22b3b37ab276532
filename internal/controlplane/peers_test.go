package controlplane_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tailscale.com/client/local"
	"tailscale.com/client/tailscale/apitype"
	"tailscale.com/tailcfg"
	"tailscale.com/tsnet"
	"tailscale.com/tstest/integration/testcontrol"
	"tailscale.com/types/logger"

	"github.com/tailxds/tailxds/internal/controlplane"
	"github.com/tailxds/tailxds/internal/controlplane/controlplanetest"
	"github.com/tailxds/tailxds/internal/dashboard"
	"github.com/tailxds/tailxds/internal/provider"
	"github.com/tailxds/tailxds/internal/tailnet"
	"github.com/tailxds/tailxds/internal/topology"
)

// pair are two control planes of one tailnet, each a real node on it, that read
// the same list.
type pair struct {
	tailnet *testcontrol.Server
	list    *controlplanetest.Control // whose directory holds the list
}

// start starts one of them, which is given the names of both.
func (p pair) start(t *testing.T, name string) *controlplanetest.Control {
	t.Helper()
	dir := filepath.Join(p.list.Dir, name)
	return controlplanetest.Start(t, dir, controlplanetest.Joiner(dir, p.tailnet.HTTPTestServer.URL), func(o *controlplane.Config) {
		o.Provider, o.Devices, o.Hostname, o.Peers = provider.File, filepath.Join(p.list.Dir, "devices.json"), name, []string{"plane-1", "plane-2"}
		o.PollInterval, o.HoldFor = 100*time.Millisecond, controlplanetest.Hold
		o.PeerTimeout = time.Minute // however slow the machine is
	})
}

func (p pair) grant(role string) {
	p.tailnet.SetGlobalAppCaps(tailcfg.PeerCapMap{dashboard.Capability: {tailcfg.RawMessage(fmt.Sprintf(`{"role":%q}`, role))}})
}

func newPair(t *testing.T, role string, all []topology.Device) pair {
	t.Helper()
	p := pair{
		tailnet: controlplanetest.StartCoordination(t, func(s *testcontrol.Server) { s.MagicDNSDomain = "example.ts.net" }),
		list:    controlplanetest.New(t),
	}
	p.grant(role)
	p.list.List(all)
	return p
}

// drains are the drains in force, "d01 by alice at the control plane".
func drainsOf(c *controlplanetest.Control) string {
	c.T.Helper()
	var all []string
	for _, w := range c.Status().Drains {
		all = append(all, w.Name+" by "+w.By)
	}
	return strings.Join(all, " ")
}

func awaitDrains(c *controlplanetest.Control, want string) {
	c.T.Helper()
	c.Await("drains "+want, func() bool { return drainsOf(c) == want })
}

// acquainted waits until both have heard each other.
func (p pair) acquainted(all ...*controlplanetest.Control) {
	for _, c := range all {
		c.Await("the other control plane", func() bool {
			s := c.Status().Peers
			return len(s) == 1 && s[0].Synced && s[0].Error == "" && !s[0].LastAnswer.IsZero()
		})
	}
}

// What an operator says to one of two control planes, the other obeys, also if it
// was away then, and in the order in which it was said.
func TestPeers_drainOnOne_actsOnBoth(t *testing.T) {
	t.Parallel()
	p := newPair(t, "operate", controlplanetest.Machines(3, "tag:weight-1"))
	one, two := p.start(t, "plane-1"), p.start(t, "plane-2")
	p.acquainted(one, two)
	one.AwaitWeights("d01=1 d02=1 d03=1")
	two.AwaitWeights("d01=1 d02=1 d03=1")
	if got := controlplanetest.Operate(one, "drain", "device", "d02", "for", "1h"); !strings.HasSuffix(got, "; plane-2 knows, too") {
		t.Errorf("drain says %q", got)
	}
	one.AwaitWeights("d01=1 d03=1")
	two.AwaitWeights("d01=1 d03=1")
	if a, b := one.Status().Drains[0], two.Status().Drains[0]; a.By != b.By || !a.Until.Equal(b.Until) || a.Until.IsZero() {
		t.Errorf("they know %+v and %+v", a, b)
	}
	if problems := append(one.Status().Problems, two.Status().Problems...); len(problems) > 0 {
		t.Errorf("problems: %+v", problems)
	}

	// One is away while the other is told, and the other is gone when it is back:
	// what it kept counts until they meet.
	if err := two.Stop(); err != nil {
		t.Fatal(err)
	}
	if got := controlplanetest.Operate(one, "restore", "device", "d02"); !strings.Contains(got, "; BUT plane-2 does not know yet") {
		t.Errorf("restore says %q", got)
	}
	controlplanetest.Operate(one, "drain", "device", "d03")
	one.AwaitWeights("d01=1 d02=1")
	two = p.start(t, "plane-2")
	two.AwaitWeights("d01=1 d02=1")
	awaitDrains(two, "d03 by alice at the control plane")
	awaitDrains(one, "d03 by alice at the control plane")
	// And back, by the other.
	controlplanetest.Operate(two, "restore", "device", "d03")
	one.AwaitWeights("d01=1 d02=1 d03=1")
}

// The second witness of one control plane is one of the other, too: half of the
// Envoys hang on each.
func TestPeers_envoyOnOne_confirmsOnBoth(t *testing.T) {
	t.Parallel()
	p := newPair(t, "operate", controlplanetest.Machines(2, "tag:weight-1"))
	node := &tsnet.Server{
		Dir: t.TempDir(), Hostname: "d01", ControlURL: p.tailnet.HTTPTestServer.URL, Ephemeral: true,
		Logf: logger.Discard, UserLogf: logger.Discard,
	}
	t.Cleanup(func() { _ = node.Close() })
	joined, err := node.Up(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := controlplanetest.Machines(2, "tag:weight-1")
	all[0].Addresses = []string{joined.TailscaleIPs[0].String()}
	p.list.List(all)
	one, two := p.start(t, "plane-1"), p.start(t, "plane-2")
	p.acquainted(one, two)
	two.AwaitWeights("d01=1 d02=1")
	e := one.ConnectBy(func(ctx context.Context, address string) (net.Conn, error) {
		return node.Dial(ctx, "tcp", "plane-1"+address)
	}, "server")
	e.Await("server", "d01=1 d02=1")

	p.list.List(all[1:]) // one of two may go at once
	witness := func(c *controlplanetest.Control) {
		t.Helper()
		c.Await("the Envoy's evidence", func() bool {
			return slices.ContainsFunc(c.Status().Problems, func(p topology.Problem) bool {
				return strings.Contains(p.Reason, "its own Envoy is connected")
			})
		})
	}
	witness(one)
	witness(two)
	two.Passes(3 * controlplanetest.Hold)
	witness(two)
	two.AwaitWeights("d01=1 d02=1")
	e.Stop()
	two.AwaitWeights("d02=1")
	one.AwaitWeights("d02=1")
}

// Whom the policy does not let operate is not believed, and who may not even view
// is told nothing.
func TestPeers_withoutGrant_areRefused(t *testing.T) {
	t.Parallel()
	p := newPair(t, "view", controlplanetest.Machines(2, "tag:weight-1"))
	one, two := p.start(t, "plane-1"), p.start(t, "plane-2")
	problem := func(c *controlplanetest.Control, name, want string) {
		t.Helper()
		c.Await(want, func() bool {
			for _, p := range c.Status().Problems {
				if p.Subject == "peer" && p.Name == name && strings.Contains(p.Reason, want) {
					return true
				}
			}
			return false
		})
	}
	const notBelieved = `it is not believed: the tailnet's policy must grant tailxds.dev/cap/admin {"role": "operate"} from plane-`
	problem(one, "plane-2", notBelieved)
	problem(two, "plane-1", notBelieved)
	if got := controlplanetest.Operate(two, "drain", "device", "d01"); !strings.Contains(got, "BUT plane-1 does not know yet") {
		t.Errorf("drain says %q", got)
	}
	if got := drainsOf(one); got != "" {
		t.Errorf("it believes %s", got)
	}
	// A mended policy is enough.
	p.grant("operate")
	awaitDrains(one, "d01 by alice at the control plane")
	one.Await("the problem to be solved", func() bool { return len(one.Status().Problems) == 0 })
}

func TestAdminRole_grants_areRead(t *testing.T) {
	for want, raw := range map[dashboard.Role][]tailcfg.RawMessage{
		"":        {`{"role":"owner"}`, `"operate"`, `{"role":["operate"]}`, `{}`},
		"view":    {`{`, `{"role":"view"}`, `{"role":"VIEW"}`},
		"operate": {`{"role":1}`, `{"role":"view"}`, `{"role":"operate"}`, `{"role":"view"}`},
	} {
		who := &apitype.WhoIsResponse{CapMap: tailcfg.PeerCapMap{dashboard.Capability: raw, "example.com/other": {`{"role":"operate"}`}}}
		if got := tailnet.AdminRole(who); got != want {
			t.Errorf("%s: %q, want %q", raw, got, want)
		}
	}
}

func TestTailnetHandler_callers_areAdmittedByGrant(t *testing.T) {
	answers := map[string]func(http.ResponseWriter){
		"operator": func(w http.ResponseWriter) {
			_ = json.NewEncoder(w).Encode(&apitype.WhoIsResponse{
				Node: &tailcfg.Node{Name: "plane-2.example.ts.net."}, UserProfile: &tailcfg.UserProfile{},
				CapMap: tailcfg.PeerCapMap{dashboard.Capability: {`{"role":"operate"}`}},
			})
		},
		"stranger": func(w http.ResponseWriter) {
			_ = json.NewEncoder(w).Encode(&apitype.WhoIsResponse{Node: &tailcfg.Node{Name: "laptop.example.ts.net."}, UserProfile: &tailcfg.UserProfile{}})
		},
		"unknown": func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) },
		"failing": func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) },
	}
	for name, want := range map[string]struct {
		code int
		body string
	}{
		"operator": {200, "words"},
		"stranger": {403, `{"role": "view"} or {"role": "operate"} from laptop to this`},
		"unknown":  {403, "does not know this address"},
		"failing":  {503, "nobody can tell who asks: WhoIs "},
	} {
		node := &tailnet.Node{LocalClient: &local.Client{OmitAuth: true, Transport: answersWith(answers[name])}}
		door := node.Authorizer()
		door.AllowsHost = func(context.Context, string) bool { return true }
		got := httptest.NewRecorder()
		door.Admit(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("words")) })).
			ServeHTTP(got, httptest.NewRequest(http.MethodGet, "/words", nil))
		if got.Code != want.code || !strings.Contains(got.Body.String(), want.body) {
			t.Errorf("%s: %d %s", name, got.Code, got.Body)
		}
	}
}

// answersWith is a node's local API with one answer.
type answersWith func(http.ResponseWriter)

func (f answersWith) RoundTrip(*http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	f(w)
	return w.Result(), nil
}
