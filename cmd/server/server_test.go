package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer closeOf(t, resp.Body)
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSuffix(string(body), "\n")
}

func TestNewHandler_paths_answer(t *testing.T) {
	srv := httptest.NewServer(newHandler("west-1", "west", log.New(io.Discard, "", 0)))
	defer srv.Close()

	for i, step := range []struct {
		path string
		code int
		body string
	}{
		{"/", 200, "Hello from west-1! in west"},
		{"/healthz", 200, "healthy"},
		{"/unhealthy", 200, "[west-1] Set to unhealthy"},
		{"/healthz", 503, "unhealthy"},
		{"/", 200, "Hello from west-1! in west"}, // only /healthz tells health
		{"/healthy", 200, "[west-1] Set to healthy"},
		{"/healthz", 200, "healthy"},
		{"/nowhere", 404, "404 page not found"},
	} {
		code, body := get(t, srv.URL+step.path)
		if code != step.code || body != step.body {
			t.Errorf("step %d: GET %s = %d %q, want %d %q", i, step.path, code, body, step.code, step.body)
		}
	}
}

func TestNewHandler_wait_waits(t *testing.T) {
	server := httptest.NewServer(newHandler("h", "r", log.New(io.Discard, "", 0)))
	defer server.Close()
	began := time.Now()
	if code, body := get(t, server.URL+"/?wait=50ms"); code != http.StatusOK || time.Since(began) < 50*time.Millisecond {
		t.Errorf("answered %d %q after %v", code, body, time.Since(began))
	}
	for _, bad := range []string{"9s", "-1s", "soon"} {
		if code, body := get(t, server.URL+"/?wait="+bad); code != http.StatusBadRequest || !strings.Contains(body, "such as 3s") {
			t.Errorf("wait=%s: %d %q", bad, code, body)
		}
	}
}

func TestNewHandler_noRegion_keepsItsShape(t *testing.T) {
	srv := httptest.NewServer(newHandler("west-1", "", log.New(io.Discard, "", 0)))
	defer srv.Close()
	if _, body := get(t, srv.URL); body != "Hello from west-1! in unknown" {
		t.Errorf("GET / = %q", body)
	}
}

func env(kv map[string]string) func(string) string {
	return func(k string) string { return kv[k] }
}

func closeOf(t *testing.T, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer closeOf(t, l)
	return l.Addr().String()
}

// startLine signals when the server has said that it starts.
type startLine struct {
	started chan struct{}
	bytes.Buffer
}

func (s *startLine) Write(p []byte) (int, error) {
	if strings.Contains(string(p), "Server starting on ") {
		close(s.started)
	}
	return s.Buffer.Write(p)
}

func TestServe_contextEnds_stops(t *testing.T) {
	addr := freeAddr(t)
	ctx, cancel := context.WithCancel(t.Context())
	out := &startLine{started: make(chan struct{})}
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, nil, env(map[string]string{"ADDR": addr, "REGION": "east"}), out)
	}()
	<-out.started

	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if _, body := get(t, "http://"+addr); body != "Hello from "+host+"! in east" {
		t.Errorf("GET / = %q", body)
	}
	if err := run(t.Context(), []string{"healthcheck", "http://" + addr + "/healthz"}, env(nil), io.Discard); err != nil {
		t.Error(err)
	}
	http.DefaultClient.CloseIdleConnections()
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(drainTimeout):
		t.Error("the server did not stop")
	}
	if want := "Server starting on " + addr + ", host = " + host; !strings.Contains(out.String(), want) {
		t.Errorf("log lacks %q:\n%s", want, out.String())
	}
}

func TestServe_portIsTaken_saysWhatToDo(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer closeOf(t, taken)
	err = run(t.Context(), nil, env(map[string]string{"ADDR": taken.Addr().String()}), io.Discard)
	if err == nil || !strings.Contains(err.Error(), "set ADDR to another") {
		t.Errorf("error = %v", err)
	}
}

func TestRun_healthcheckOf503OrNothing_fails(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer srv.Close()
	if err := run(t.Context(), []string{"healthcheck", srv.URL}, env(nil), io.Discard); err == nil {
		t.Error("a 503 passed the health check")
	}
	if err := run(t.Context(), []string{"healthcheck", "http://" + freeAddr(t)}, env(nil), io.Discard); err == nil {
		t.Error("nobody listening passed the health check")
	}
}

func TestRun_unknownArguments_areRefused(t *testing.T) {
	if err := run(t.Context(), []string{"sreve"}, env(nil), io.Discard); err == nil || !strings.Contains(err.Error(), "usage:") {
		t.Errorf("error = %v", err)
	}
}

func TestMeter_requests_followTheRate(t *testing.T) {
	var m meter
	at := time.Unix(1000, 0)
	var rate float64
	at = at.Add(time.Second)
	for range 300 { // 100 a second for three seconds
		rate = m.count(at)
		at = at.Add(10 * time.Millisecond)
	}
	if rate < 99 || rate > 101 {
		t.Errorf("100 a second are measured as %v", rate)
	}
	for range 20 { // 10 a second for two
		at = at.Add(100 * time.Millisecond)
		rate = m.count(at)
	}
	if rate < 9 || rate > 12 {
		t.Errorf("10 a second are measured as %v", rate)
	}
	if rate = m.count(at.Add(time.Hour)); rate != 1 {
		t.Errorf("after a long time without requests: %v", rate)
	}
}

func TestReportLoad_answer_hasTheLoad(t *testing.T) {
	now := func() time.Time { return time.Unix(1000, 0) }
	h := reportLoad(200, now, newHandler("a", "", log.New(io.Discard, "", 0)))
	for n := 1; n <= 3; n++ {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		want := fmt.Sprintf("TEXT application_utilization=%g,rps_fractional=%d", float64(n)/200, n)
		if got := w.Header().Get("endpoint-load-metrics"); got != want || !strings.Contains(w.Body.String(), "from a") {
			t.Errorf("got %q and %q, want %q", got, w.Body, want)
		}
	}
}

func TestParseCapacity_texts_areReadOrRefused(t *testing.T) {
	for _, text := range []string{"many", "0", "-1", "NaN", "+Inf", "1e999"} {
		env := func(name string) string { return map[string]string{"HOST": "a", "CAPACITY": text}[name] }
		if err := run(context.Background(), nil, env, io.Discard); err == nil || !strings.Contains(err.Error(), "CAPACITY") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if c, err := parseCapacity("2.5"); err != nil || c != 2.5 {
		t.Errorf("2.5: %v, %v", c, err)
	}
	if c, err := parseCapacity(""); err != nil || c != 0 {
		t.Errorf("none: %v, %v", c, err)
	}
}
