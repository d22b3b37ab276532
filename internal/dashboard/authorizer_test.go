package dashboard

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// did is what an operator had done.
type did struct{ asked []string }

func (d *did) source() Source {
	return Source{
		Views:   noView,
		Preview: func(a Action) Preview { return Preview{Regions: []string{string(a.Kind) + a.Service + a.Device}} },
		Accept: func(_ context.Context, by, service string) error {
			if service == "" {
				return errors.New("nothing is held")
			}
			d.asked = append(d.asked, by+" accepts "+service)
			return nil
		},
		Drain: func(_ context.Context, by, device string, during time.Duration) error {
			d.asked = append(d.asked, by+" drains "+device+" for "+during.String())
			return nil
		},
		Restore: func(_ context.Context, by, device string) error {
			d.asked = append(d.asked, by+" restores "+device)
			return nil
		},
	}
}

// as lets everybody in with a role, under two names.
func as(role Role) Authorizer {
	return Authorizer{
		Identify:   func(*http.Request) (Viewer, error) { return Viewer{"somebody", role}, nil },
		AllowsHost: func(_ context.Context, host string) bool { return host == "page.example" || host == "100.64.0.1" },
	}
}

func ask(h http.Handler, method, path, body string, headers map[string]string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Host = "page.example"
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
	}
	for k, v := range headers {
		if r.Header.Set(k, v); k == "Host" {
			r.Host = v
		}
	}
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, r)
	return answer
}

func TestHandler_roles_mayDoTheirPart(t *testing.T) {
	var d did
	page := New(d.source())
	for _, test := range []struct{ path, body, did string }{
		{"/act/accept", `{"service": "server"}`, "somebody accepts server"},
		{"/act/drain", `{"device": "n1", "minutes": 30}`, "somebody drains n1 for 30m0s"},
		{"/act/drain", `{"device": "n1"}`, "somebody drains n1 for 0s"},
		{"/act/restore", `{"device": "n1"}`, "somebody restores n1"},
	} {
		for role, code := range map[Role]int{RoleNone: 403, "admin": 403, RoleView: 403, RoleOperate: 204} {
			d.asked = nil
			answer := ask(page.Handler(as(role)), http.MethodPost, test.path, test.body, nil)
			done := strings.Join(d.asked, ", ")
			if answer.Code != code || (code == 204) != (done == test.did) || (code != 204) != (done == "") {
				t.Errorf("%s as %q: %d %s, and done was %q", test.path, role, answer.Code, answer.Body, done)
			}
		}
	}
}

// A stranger, another name and another site's page get nothing, whatever they ask.
func TestHandler_unknownPeer_getsNothing(t *testing.T) {
	var d did
	page := New(d.source())
	for name, test := range map[string]struct {
		role    Role
		headers map[string]string
		code    int
	}{
		"a stranger":                        {RoleNone, nil, 403},
		"an unknown role":                   {"owner", nil, 403},
		"another name":                      {RoleOperate, map[string]string{"Host": "evil.example"}, 421},
		"a name that was pointed here":      {RoleOperate, map[string]string{"Host": "evil.example:80", "Origin": "http://evil.example"}, 421},
		"no name":                           {RoleOperate, map[string]string{"Host": ""}, 421},
		"another site":                      {RoleOperate, map[string]string{"Origin": "http://evil.example"}, 403},
		"another port of ours":              {RoleOperate, map[string]string{"Origin": "http://page.example:8080"}, 403},
		"a page without an origin":          {RoleOperate, map[string]string{"Origin": "null"}, 403},
		"another site, as the browser says": {RoleOperate, map[string]string{"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}, 403},
	} {
		for _, path := range []string{"/", "/live", "/preview", "/a/" + page.files.hash + "/main.js", "/act/drain", "/act/accept", "/act/restore"} {
			method := http.MethodGet
			if strings.HasPrefix(path, "/act/") {
				method = http.MethodPost
			}
			answer := ask(page.Handler(as(test.role)), method, path, `{"device": "n1", "service": "server"}`, test.headers)
			if answer.Code != test.code || strings.Contains(answer.Body.String(), "<") || answer.Body.Len() > 200 {
				t.Errorf("%s asks for %s: %d %s", name, path, answer.Code, answer.Body)
			}
		}
	}
	if len(d.asked) > 0 {
		t.Errorf("done was %q", d.asked)
	}
}

func TestHandler_otherSite_isRefused(t *testing.T) {
	var d did
	h := New(d.source()).Handler(as(RoleOperate))
	for _, headers := range []map[string]string{
		{"Origin": "http://page.example"},
		{"Host": "page.example:80", "Origin": "http://page.example:80"},
		{"Host": "PAGE.example."},
		{"Host": "100.64.0.1", "Origin": "http://100.64.0.1"},
		{"Host": "100.64.0.1:80"},
	} {
		if answer := ask(h, http.MethodPost, "/act/drain", `{"device": "n1"}`, headers); answer.Code != 204 {
			t.Errorf("%v: %d %s", headers, answer.Code, answer.Body)
		}
	}
}

func TestHostName_hosts_areNormalized(t *testing.T) {
	for host, want := range map[string]string{
		"Page.Example.:80": "page.example", "page.example": "page.example", "[FD7A::1]:80": "fd7a::1", "fd7a:0::1": "fd7a::1",
		"100.64.0.1:80": "100.64.0.1", "[fd7a::1]": "fd7a::1", "": "",
	} {
		if got := HostName(host); got != want {
			t.Errorf("%q is %q, want %q", host, got, want)
		}
	}
}

func TestHandler_actions_areDecoded(t *testing.T) {
	var d did
	h := New(d.source()).Handler(as(RoleOperate))
	for _, test := range []struct {
		path, body, kind string
		code             int
		says             string
	}{
		{"/act/drain", `{`, "application/json", 400, "read what is asked for"},
		{"/act/drain", `{"device": "n1", "minutes": -1}`, "application/json", 400, "minutes"},
		{"/act/drain", `{"device": "n1", "minutes": 527041}`, "application/json", 400, "minutes"},
		{"/act/drain", `{"device": "` + strings.Repeat("n", 5000) + `"}`, "application/json", 400, "too large"},
		{"/act/drain", `{"device": "n1"}`, "text/plain", 415, "application/json"},
		{"/act/accept", `{}`, "application/json", 409, "nothing is held"},
		{"/act/burn", `{}`, "application/json", 404, ""},
	} {
		answer := ask(h, http.MethodPost, test.path, test.body, map[string]string{"Content-Type": test.kind})
		if answer.Code != test.code || !strings.Contains(answer.Body.String(), test.says) {
			t.Errorf("%s %.40s: %d %s", test.path, test.body, answer.Code, answer.Body)
		}
	}
	if len(d.asked) > 0 {
		t.Errorf("done was %q", d.asked)
	}
	if answer := ask(h, http.MethodPost, "/act/drain", `{"device": "n1", "minutes": 527040}`, nil); answer.Code != 204 {
		t.Errorf("a year: %d %s", answer.Code, answer.Body)
	}
	if answer := ask(h, http.MethodGet, "/act/drain", "", nil); answer.Code != 405 {
		t.Errorf("a GET acts: %d", answer.Code)
	}
	if answer := ask(h, http.MethodGet, "/preview?act=drain&service=s&device=n1", "", nil); !strings.Contains(answer.Body.String(), "drainsn1") {
		t.Errorf("the preview is %s", answer.Body)
	}
}

// The page loads its own files only, and they are not mixed between builds.
func TestHandler_files_areServed(t *testing.T) {
	var d did
	page := New(d.source())
	h := page.Handler(as(RoleView))
	index := ask(h, http.MethodGet, "/", "", nil)
	if csp := index.Header().Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'; script-src 'self';") || strings.Contains(csp, "unsafe") {
		t.Errorf("the policy is %q", csp)
	}
	if index.Header().Get("Cache-Control") != "no-store" || strings.Contains(index.Body.String(), "HASH") || strings.Contains(index.Body.String(), "://") {
		t.Errorf("the page is kept, or not its own: %v %s", index.Header(), index.Body)
	}
	for name, kind := range map[string]string{"main.js": "text/javascript; charset=utf-8", "app.css": "text/css; charset=utf-8", "icon.svg": "image/svg+xml"} {
		path := "/a/" + page.files.hash + "/" + name
		if !strings.Contains(index.Body.String(), path[1:]) {
			t.Errorf("the page does not load %s", path)
		}
		plain := ask(h, http.MethodGet, path, "", nil)
		small := ask(h, http.MethodGet, path, "", map[string]string{"Accept-Encoding": "gzip"})
		if plain.Code != 200 || plain.Header().Get("Content-Type") != kind || !strings.Contains(plain.Header().Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %d %v", path, plain.Code, plain.Header())
		}
		if small.Header().Get("Content-Encoding") != "gzip" || small.Body.Len() >= plain.Body.Len() {
			t.Errorf("%s: %d bytes, %d compressed", path, plain.Body.Len(), small.Body.Len())
		}
	}
	for _, path := range []string{"/a/000000000000/main.js", "/a/" + page.files.hash + "/none.js", "/a/" + page.files.hash + "/..%2fdoor.go", "/status"} {
		if answer := ask(h, http.MethodGet, path, "", nil); answer.Code != 404 {
			t.Errorf("%s: %d", path, answer.Code)
		}
	}
}

// Why somebody gets nothing is said to them, and a failure is no refusal.
func TestAdmit_refused_saysWhy(t *testing.T) {
	for name, test := range map[string]struct {
		viewer Viewer
		err    error
		code   int
		says   string
	}{
		"a stranger":      {Viewer{}, fmt.Errorf("WhoIs: %w", ErrUnknownPeer), 403, "the tailnet does not know this address"},
		"nobody can tell": {Viewer{"x", RoleOperate}, errors.New("timeout"), 503, "nobody can tell who asks: timeout"},
		"no grant":        {Viewer{"alice", RoleNone}, nil, 403, `must grant tailxds.dev/cap/admin {"role": "view"} or {"role": "operate"} from alice to`},
		"a viewer":        {Viewer{"alice", RoleView}, nil, 200, "words"},
	} {
		door := as(RoleNone)
		door.Identify = func(*http.Request) (Viewer, error) { return test.viewer, test.err }
		answer := ask(door.Admit(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("words")) })), http.MethodGet, "/", "", nil)
		if answer.Code != test.code || !strings.Contains(answer.Body.String(), test.says) {
			t.Errorf("%s: %d %s", name, answer.Code, answer.Body)
		}
	}
}
