package envoys_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/tailxds/tailxds/integration/harness"
)

// A path rule matches each spelling that servers take for its path. What the server
// receives is as docs/operations.md says, for services with path rules and without.
func TestPathRules_anySpelling_matchAndForward(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var devices []harness.Device
	names := []string{"shop", "cart", "git", "plain"}
	for _, name := range names {
		s := r.Server(name)
		s.Handle(func(w http.ResponseWriter, q *http.Request) { fmt.Fprintf(w, "%s %s", s.Name, q.RequestURI) })
		devices = append(devices, s.Device("tag:service-"+name))
	}
	control := r.ControlPlane(fmt.Sprintf(`
services:
  shop:
    routes:
    - {path: "/%s", service: git} # as long as Envoy takes them
    - {path: "%s", service: git}
    - {path: "/%s", service: git}
    - {path: "/%s", service: git}
    - {path: /cart, service: cart}
    - {path: "/v1/x:cancel", service: cart}
    - {path: /projects/group%%2Fproject, service: git}
`, strings.Repeat("l", 82), strings.Repeat("/d", 12), strings.Repeat(":", 20), strings.Repeat("%20", 27)), devices...)
	entry := control.Envoy("entry")
	for _, name := range names {
		entry.AwaitHealthy(name, 1)
	}
	if rejected := control.Rejected(); rejected != "" {
		t.Fatalf("Envoy rejected: %s", rejected)
	}
	laptop := r.Host("laptop")
	for path, want := range map[string]string{ // path: the service, and what it receives unless that is the same
		"/cart": "cart", "/cart/": "cart", "/cart/x": "cart", "/cart?x=/../y//z": "cart", "/carts": "shop", "/Cart": "shop",
		"//cart": "cart", "/cart//x": "cart", "/%2Fcart": "cart", "/cart%2fx": "cart",
		"/x/../cart": "cart /cart", "/./cart": "cart /cart", "/x/%2e%2E/cart": "cart /cart", "/../cart": "cart /cart", "/x/..//cart": "cart //cart",
		"/%63art": "cart /cart", "/%63%61%72%74/%7Ex%2Dy%5Fz%2Ea": "cart /cart/~x-y_z.a", "/cart/..": "shop /", "/cart/../x": "shop /x",
		`/x\..\cart`: "cart /cart", "/%5Ccart": "shop",
		"/v1/x:cancel": "cart", "/v1/x%3Acancel": "cart", "/v1/x%3acancel?y": "cart",
		"/projects/group%2Fproject": "git", "/projects/group%2fproject/files/a%2Fb": "git", "/projects/group/project": "shop",
		"/" + strings.Repeat("l", 82) + "/x": "git", strings.Repeat("/d", 12): "git", "/" + strings.Repeat(":", 20): "git", "/" + strings.Repeat("%20", 27): "git",
		"/x%2F..%2Fcart": "400", "/x/..%2Fcart": "400", "/x%2F%2e%2E/cart": "400", "/x%00": "400",
	} {
		receives(t, laptop, entry, "shop", path, want)
	}
	for path, want := range map[string]string{
		"//bucket//key": "plain", "/a%2Fb": "plain", "/a%2fb%5Cc": "plain", "/x%2F..%2Fy": "plain", "/a%20b%3A": "plain", "/a;b=1,c!$&'()*+@:[]": "plain",
		"/http://example.com/y": "plain", "/a%25b": "plain", "/%c3%A9": "plain",
		"/a/../b": "plain /b", "/a/%2e/b": "plain /a/b", "/%7Euser": "plain /~user", "/a|b": "plain /a%7Cb", `/a\b`: "plain /a/b",
	} {
		receives(t, laptop, entry, "plain", path, want)
	}
}

// receives checks that a service receives a request for a path under a host, with
// the path that is wanted; or that Envoy answers with a status.
func receives(t *testing.T, from *harness.Host, to *harness.Envoy, host, path, want string) {
	t.Helper()
	head, body := say(t, from, to, "GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
	status := strings.Fields(head)[1]
	if status == "200" {
		status = strings.TrimSpace(body)
	}
	switch {
	case want == "400":
		status, _, _ = strings.Cut(status, "\n")
	case !strings.Contains(want, " "):
		want += " " + path
	}
	if status != want {
		t.Errorf("%s of %s: %q, want %q", path, host, status, want)
	}
}
