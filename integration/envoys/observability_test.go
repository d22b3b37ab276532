package envoys_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tailxds/tailxds/integration/harness"
)

// logged are the lines of an Envoy's access log for a path.
func logged(e *harness.Envoy, path string) []map[string]any {
	var all []map[string]any
	for line := range strings.Lines(e.LogTail()) {
		var fields map[string]any
		if json.Unmarshal([]byte(line), &fields) == nil && fields["path"] == path {
			all = append(all, fields)
		}
	}
	return all
}

// proxied is a request as a proxy in front hands it on.
func proxied(url, client string) harness.Request {
	return func(ctx context.Context) (*http.Request, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err == nil {
			r.Header.Set("X-Forwarded-For", client)
		}
		return r, err
	}
}

func TestAccessLog_trustedHops_namesClient(t *testing.T) {
	t.Parallel()
	const slow = 100 * time.Millisecond // it is how long an answer takes
	r := newRig(t)
	a := r.Server("a")
	var served sync.Map // the x-request-id of each path
	a.Handle(func(w http.ResponseWriter, request *http.Request) {
		if strings.HasPrefix(request.URL.Path, "/broken") {
			w.WriteHeader(http.StatusNotImplemented)
		}
		if request.URL.Path == "/slow" {
			time.Sleep(slow)
		}
		served.Store(request.URL.Path, request.Header.Get("X-Request-Id"))
		a.Hello(w)
	})
	control := r.ControlPlane("ingress: {access_log: all, trusted_hops: 1}", a.Device("tag:weight-1"))
	entry, laptop := control.Envoy("entry"), r.Host("laptop")
	entry.AwaitHealthy("server", 1)
	asks := func(path string) harness.Request { return proxied(entry.URL(10000)+path, "203.0.113.7") }
	ask := func(path string) { laptop.Ask(1, asks(path)) }
	line := func(path string) (only map[string]any) {
		t.Helper()
		r.Await("a line for /"+path, func() error {
			lines := logged(entry, "/"+path)
			if len(lines) != 1 {
				return fmt.Errorf("%d lines", len(lines))
			}
			only = lines[0]
			return nil
		})
		return only
	}

	// What Envoy can't read, no filter of requests sees, and is logged all the same.
	garbled, err := laptop.Connect(t.Context(), net.JoinHostPort(entry.V4.String(), "10000"))
	if err != nil {
		t.Fatal(err)
	}
	defer garbled.Close()
	if _, err := fmt.Fprint(garbled, "GET /garbled HTTP/1.1\r\nno header\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(garbled); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") {
		t.Errorf("a request that Envoy can't read: %q, %v", answer, err)
	}
	ask("one")
	got := line("one")
	if !strings.Contains(entry.LogTail(), `"flags":"DPE"`) {
		t.Errorf("a request that Envoy can't read is not in the log:\n%s", entry.LogTail())
	}
	for key, want := range map[string]any{
		"method": "GET", "status": 200.0, "service": "server", "client": "203.0.113.7", "attempts": 1.0, "protocol": "HTTP/1.1",
	} {
		if got[key] != want {
			t.Errorf("the line says %s=%v, want %v: %v", key, got[key], want, got)
		}
	}
	if peer := fmt.Sprint(got["peer"]); !strings.HasPrefix(peer, laptop.V4.String()+":") {
		t.Errorf("the line says that the peer is %s, not %s", peer, laptop.V4)
	}
	if upstream := fmt.Sprint(got["upstream"]); upstream != a.V4.String()+":8080" {
		t.Errorf("the line says that %s answered, not a", upstream)
	}

	laptop.Ask(1, func(ctx context.Context) (*http.Request, error) {
		request, err := asks("slow")(ctx)
		if err == nil {
			request.Header.Set("X-Request-Id", "of-the-proxy")
		}
		return request, err
	})
	if ms, _ := line("slow")["upstream_ms"].(float64); ms < milliseconds(slow) || ms > 50*milliseconds(slow) {
		t.Errorf("the line says that the server took %v ms, and it took %s", ms, slow)
	}

	// A request has an ID in the log and at the server: its own, or one that is made.
	for path, want := range map[string]string{"one": "[0-9a-f-]{36}", "slow": "of-the-proxy"} {
		id, _ := line(path)["request_id"].(string)
		if got, _ := served.Load("/" + path); got != id || !regexp.MustCompile("^"+want+"$").MatchString(id) {
			t.Errorf("the request for /%s has the ID %q in the log and %q at the server, want %s", path, id, got, want)
		}
	}

	// Without trust a header says nothing, and of what goes well no line is kept.
	control.SetPolicy("ingress: {access_log: errors}")
	r.Await("the other policy is in force", func() error {
		ask("broken")
		lines := logged(entry, "/broken")
		if len(lines) == 0 || lines[len(lines)-1]["client"] != laptop.V4.String() {
			return fmt.Errorf("the lines are %v", lines)
		}
		return nil
	})
	ask("two")
	ask("broken/last") // lines are in order: had there been one of /two, it would be there by now
	if got := line("broken/last"); got["status"] != 501.0 {
		t.Errorf("the line of a failure says %v", got)
	}
	if lines := logged(entry, "/two"); len(lines) > 0 {
		t.Errorf("a request that went well is in the log of errors: %v", lines)
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// Neither who asks nor who answers is told how the way between them is built.
func TestIngress_responses_hideEnvoy(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.Server("a")
	got := make(chan http.Header, 1)
	a.Handle(func(w http.ResponseWriter, request *http.Request) {
		got <- request.Header
		a.Hello(w)
	})
	entry := r.ControlPlane("defaults: {attempt_timeout: 5s}", a.Device("tag:weight-1")).Envoy("entry")
	entry.AwaitHealthy("server", 1)
	request, err := harness.Get(entry.URL(10000), "")(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	answer, err := r.Host("laptop").Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	if err := answer.Body.Close(); err != nil {
		t.Error(err)
	}
	asked := <-got
	for name, header := range map[string]http.Header{"the server's request": asked, "the caller's answer": answer.Header} {
		for key := range header {
			if strings.HasPrefix(key, "X-Envoy-") && key != "X-Envoy-External-Address" {
				t.Errorf("%s has %s: %s", name, key, header.Get(key))
			}
		}
	}
	if asked.Get("X-Forwarded-For") == "" || asked.Get("X-Forwarded-Proto") != "http" {
		t.Errorf("the server's request lacks what tells callers apart: %v", asked)
	}
}

func TestEnvoyMetrics_otherPages_notServed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.Server("a")
	entry := r.ControlPlane("", a.Device("tag:weight-1")).EnvoyShowing("0.0.0.0:9902", "entry")
	entry.AwaitHealthy("server", 1)
	prometheus := r.Host("prometheus")
	status, page, err := prometheus.Once(harness.Get(entry.URL(9902)+"metrics", ""))
	if err != nil || status != http.StatusOK || !strings.Contains(page, `envoy_cluster_membership_healthy{envoy_cluster_name="server"} 1`) {
		t.Errorf("/metrics: %d, %v: %.500s", status, err, page)
	}
	for _, path := range []string{"", "stats/prometheus", "quitquitquit", "config_dump", "metrics/../config_dump", "metrics/x"} {
		if status, body, err := prometheus.Once(harness.Get(entry.URL(9902)+path, "")); err != nil || status != http.StatusNotFound {
			t.Errorf("GET /%s: %d, %v: %.200s", path, status, err, body)
		}
	}
	if status, _, err := prometheus.Once(harness.Post(entry.URL(9902)+"metrics", "")); err != nil || status != http.StatusNotFound {
		t.Errorf("POST /metrics: %d, %v", status, err)
	}
}
