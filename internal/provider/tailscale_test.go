package provider

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	tsapi "tailscale.com/client/tailscale/v2"

	"github.com/tailxds/tailxds/internal/topology"
)

// standIn is the part of Tailscale's API that is used, after its public
// description. It marshals the public Go client's own types, so that what is
// read here is what that client knows.
type standIn struct {
	*httptest.Server
	mu         sync.Mutex
	devices    []tsapi.Device
	attributes map[string]tsapi.DevicePostureAttributes
	refuse     map[string]int // status by the end of the path
	minted     int
	revoked    map[string]bool // access tokens
	asked      map[string]int
}

func newStandIn(t *testing.T) *standIn {
	s := &standIn{refuse: map[string]int{}, revoked: map[string]bool{}, asked: map[string]int{}, attributes: map[string]tsapi.DevicePostureAttributes{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v2/oauth/token", s.token)
	mux.HandleFunc("GET /api/v2/tailnet/{tailnet}/devices", func(w http.ResponseWriter, r *http.Request) {
		if got := r.PathValue("tailnet"); got != "-" && got != "example.com" {
			s.fail(w, r, 404)
			return
		}
		s.reply(w, map[string]any{"devices": s.devices})
	})
	mux.HandleFunc("GET /api/v2/device/{id}/attributes", func(w http.ResponseWriter, r *http.Request) {
		known, ok := s.attributes[r.PathValue("id")]
		if !ok {
			known.Attributes = map[string]any{"node:os": "linux"}
		}
		s.reply(w, known)
	})
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.asked[r.URL.Path]++
		for end, status := range s.refuse {
			if strings.HasSuffix(r.URL.Path, end) {
				s.fail(w, r, status)
				return
			}
		}
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		if r.Method == http.MethodGet && (s.revoked[token] || token != testKey && !strings.HasPrefix(token, testAccess)) {
			s.fail(w, r, 401)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *standIn) reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// fail echoes what it was sent, as a careless server would.
func (s *standIn) fail(w http.ResponseWriter, r *http.Request, status int) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"message":"refused %s %s"}`, r.Header.Get("Authorization"), r.FormValue("client_secret"))
}

func (s *standIn) token(w http.ResponseWriter, r *http.Request) {
	id, secret, basic := r.BasicAuth()
	if !basic {
		id, secret = r.FormValue("client_id"), r.FormValue("client_secret")
	}
	if id != testID || secret != testSecret || r.FormValue("grant_type") != "client_credentials" {
		s.fail(w, r, 401)
		return
	}
	s.minted++
	s.reply(w, map[string]any{"access_token": fmt.Sprintf("%s-%d", testAccess, s.minted), "token_type": "Bearer", "expires_in": 3600})
}

// count is how often a path that ends so was asked for since the last count.
func (s *standIn) count(end string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for path, times := range s.asked {
		if strings.HasSuffix(path, end) {
			n += times
			s.asked[path] = 0
		}
	}
	return n
}

func (s *standIn) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *standIn) open(t *testing.T, cfg Config) Source {
	t.Helper()
	cfg.Provider, cfg.APIURL, cfg.Log = Tailscale, s.URL, quiet()
	src, _, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

func oauthClient() Config { return Config{ClientID: testID, ClientSecret: testSecret} }

func TestTailscale_devices_areListed(t *testing.T) {
	s := newStandIn(t)
	expires := time.Date(2027, 3, 4, 5, 6, 7, 0, time.UTC)
	s.devices = []tsapi.Device{
		{
			NodeID: "nWEST1CNTRL", ID: "92960230385", Name: "west-1.tail-scale.ts.net", Hostname: "west-1-os", Authorized: true,
			Addresses: []string{"100.64.0.1", "fd7a:115c:a1e0::1"}, Tags: []string{"tag:weight-1"}, ConnectedToControl: true,
			Expires: tsapi.Time{Time: expires}, EnabledRoutes: []string{"10.0.0.0/8"},
		},
		{ID: "7", Hostname: "old", Authorized: true, Expires: tsapi.Time{Time: expires}, KeyExpiryDisabled: true, LastSeen: &tsapi.Time{Time: expires}},
		{NodeID: "nNEVER", Authorized: true, ConnectedToControl: true},
		{NodeID: "nWAITS", Authorized: false, ConnectedToControl: true},
	}
	want := []topology.Device{
		{ID: "nWEST1CNTRL", Name: "west-1", Addresses: []string{"100.64.0.1", "fd7a:115c:a1e0::1"}, Tags: []string{"tag:weight-1"}, Online: true, Expires: &expires},
		{ID: "7", Name: "old"},
		{ID: "nNEVER", Online: true},
	}
	for name, cfg := range map[string]Config{
		"token": {APIToken: testKey}, "OAuth client": oauthClient(), "named tailnet": {APIToken: testKey, Tailnet: "example.com"},
	} {
		got, err := s.open(t, cfg).List(t.Context())
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestTailscaleList_devicesThatNoPeerReaches_saySo(t *testing.T) {
	s := newStandIn(t)
	s.devices = []tsapi.Device{
		{NodeID: "nLOCKED", Authorized: true, ConnectedToControl: true, Addresses: []string{"100.64.0.1"}, TailnetLockError: "node key not signed"},
		{NodeID: "nSHUT", Authorized: true, ConnectedToControl: true, Addresses: []string{"100.64.0.2"}, BlocksIncomingConnections: true},
		{NodeID: "nOPEN", Authorized: true, ConnectedToControl: true, Addresses: []string{"100.64.0.3"}},
	}
	got, err := s.open(t, Config{APIToken: testKey}).List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"tailnet lock refuses its key (node key not signed)", "it blocks incoming connections", ""} {
		if text := got[i].Unreachable; !strings.Contains(text, want) || (want == "") != (text == "") {
			t.Errorf("%s: %q, want %q", got[i].ID, text, want)
		}
	}
}

// headscale 0.30 serves the same path without connectedToControl.
func TestTailscale_headscalesAPI_isListed(t *testing.T) {
	server := httptest.NewServer(answer(200, `{"devices":[{"id":"3","nodeId":"3","name":"west-1","authorized":true,
		"addresses":["100.64.0.1"],"tags":[],"expires":"","lastSeen":"2020-01-01T00:00:00Z"}]}`))
	defer server.Close()
	got, err := openAt(t, Tailscale, server.URL).List(t.Context())
	want := []topology.Device{{ID: "3", Name: "west-1", Addresses: []string{"100.64.0.1"}, Tags: []string{}, Online: true}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
}

func TestOAuth_tokenRefused_mintsOnceMore(t *testing.T) {
	s := newStandIn(t)
	src := s.open(t, oauthClient())
	list := func() error { _, err := src.List(t.Context()); return err }
	for range 3 {
		if err := list(); err != nil {
			t.Fatal(err)
		}
	}
	if s.minted != 1 {
		t.Errorf("%d tokens for three lists", s.minted)
	}
	s.set(func() { s.revoked[testAccess+"-1"] = true })
	if err := list(); err != nil || s.minted != 2 {
		t.Errorf("a revoked token: %v, %d tokens", err, s.minted)
	}
	s.set(func() { s.refuse["/devices"] = 401 })
	err := list()
	if err == nil || s.minted != 3 || !denied(err) {
		t.Errorf("a client that is refused: %v, %d tokens", err, s.minted)
	}
	if n := s.count("/devices"); n != 3+2+2 {
		t.Errorf("the list was asked for %d times", n)
	}
}

func TestOAuth_failure_isAnErrorWithoutSecrets(t *testing.T) {
	for _, c := range []struct {
		name   string
		mint   http.HandlerFunc
		says   string
		denied bool
		wait   time.Duration
	}{
		{"wrong secret", answer(401, `{"error":"invalid_client","error_description":"`+testSecret+`"}`), "revoked, or its ID or secret", true, 0},
		{"wrong secret, by the book", answer(400, `{"error":"invalid_client"}`), "invalid_client", true, 0},
		{"Tailscale's words", answer(401, `{"message":"API token invalid `+testSecret+`"}`), "401", true, 0},
		{"forbidden", answer(403, `{}`), "403", true, 0},
		{"down", answer(500, testSecret), "500", false, 0},
		{"busy", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "11")
			answer(429, `{}`)(w, r)
		}, "429", false, 11 * time.Second},
		{"no token in it", answer(200, `{"message":"`+testSecret+`"}`), "token", false, 0},
		{"HTML", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, "<html>"+testSecret)
		}, "token", false, 0},
		{"cut", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, `{"access_token":"`+testSecret)
			panic(http.ErrAbortHandler)
		}, "post ", false, 0},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/login?s="+testSecret, http.StatusFound)
		}, "302", false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(c.mint)
			defer server.Close()
			cfg := oauthClient()
			cfg.APIURL, cfg.Log = server.URL, quiet()
			src, _, err := Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			devices, err := src.List(t.Context())
			if err == nil || devices != nil {
				t.Fatalf("listed %v", devices)
			}
			if !strings.Contains(err.Error(), c.says) || denied(err) != c.denied || showsSecret(fmt.Sprintf("%v %#v", err, err)) {
				t.Errorf("denied %v: %v", denied(err), err)
			}
			if got := askedToWait(err); got != c.wait {
				t.Errorf("waits %v", got)
			}
		})
	}
}
