package envoys_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tailxds/tailxds/integration/repository"

	"github.com/tailxds/tailxds/integration/harness"
)

// ends waits until a silent connection ends, and returns how long that took.
func ends(t *testing.T, what string, c net.Conn) time.Duration {
	t.Helper()
	begun := time.Now()
	if err := c.SetReadDeadline(begun.Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil || isTimeout(err) {
		t.Fatalf("%s is silent, and was to end: %d bytes, %v", what, n, err)
	}
	return time.Since(begun)
}

// With stream_idle_timeout, what is silent for so long is ended: answers, upgraded
// connections and connections of tcp services. Without it, they outlast several others
// that it ends, also on a service whose requests have a short timeout.
func TestStreamIdleTimeout_silence_endsOnlyWhereItIsSet(t *testing.T) {
	t.Parallel()
	const idle = time.Second
	r := newRig(t)
	a, next := streamer(r, "a")
	db := r.Host("db")
	db.Echo(5433)
	policy := fmt.Sprintf(`
services:
  brief: {timeout: 0s, stream_idle_timeout: %[1]s}
  lasting: {timeout: 0s}
  short: {timeout: %[1]s}
  briefdb: {protocol: tcp, listen: 5432, stream_idle_timeout: %[1]s}
  lastingdb: {protocol: tcp, listen: 5434}
`, idle)
	grants := func(port int, services ...string) (all []map[string]any) {
		for _, s := range services {
			all = append(all, map[string]any{"service": s, "port": port})
		}
		return all
	}
	deviceA, deviceDB := a.Device(), db.Device()
	deviceA.Grants, deviceDB.Grants = grants(8080, "brief", "lasting", "short"), grants(5433, "briefdb", "lastingdb")
	control := r.ControlPlane(policy, deviceA, deviceDB)
	entry := control.Envoy("entry")
	for _, service := range []string{"brief", "lasting", "short", "briefdb", "lastingdb"} {
		entry.AwaitHealthy(service, 1)
	}
	laptop := r.Host("laptop")
	at := func(port string) string { return net.JoinHostPort(entry.V4.String(), port) }
	upgrade := func(service string) *harness.Line {
		line, err := laptop.Upgrade(t.Context(), at("10000"), service)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = line.Close() })
		return line
	}
	connect := func(port string) *harness.Line {
		line, err := laptop.Connect(t.Context(), at(port))
		if err == nil {
			err = line.RoundTrip("hello")
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = line.Close() })
		return line
	}
	stream := func(service string) io.ReadCloser {
		request, err := harness.Get(entry.URL(10000)+"stream", service)(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		answer, err := (&http.Client{Transport: &http.Transport{DialContext: laptop.Dial}}).Do(request)
		if err != nil || answer.StatusCode != http.StatusOK {
			t.Fatalf("a stream of %s: %v, %v", service, answer, err)
		}
		t.Cleanup(func() { _ = answer.Body.Close() })
		return answer.Body
	}

	lastingSocket, shortSocket, lastingConnection, lastingStream := upgrade("lasting"), upgrade("short"), connect("5434"), stream("lasting")
	for range 2 {
		briefSocket, briefConnection, briefStream := upgrade("brief"), connect("5432"), stream("brief")
		for what, c := range map[string]net.Conn{"the WebSocket": briefSocket, "the connection": briefConnection} {
			if took := ends(t, what, c); took > 10*idle {
				t.Errorf("%s ended after %s, want about %s", what, took, idle)
			}
		}
		if n, err := briefStream.Read(make([]byte, 1)); n > 0 || err == nil || errors.Is(err, io.EOF) {
			t.Errorf("the answer that streams was to be cut: %d bytes, %v", n, err)
		}
	}
	for what, line := range map[string]*harness.Line{"WebSocket": lastingSocket, "WebSocket of a service with a timeout": shortSocket, "connection": lastingConnection} {
		if err := line.RoundTrip("still there"); err != nil {
			t.Errorf("a silent %s was cut: %v", what, err)
		}
	}
	next <- "still there"
	line := make([]byte, len("still there\n"))
	if _, err := io.ReadFull(lastingStream, line); err != nil || string(line) != "still there\n" {
		t.Errorf("a silent stream was cut: %q, %v", line, err)
	}
}

// serverIdle is how long the server keeps an idle connection, as Node.js does for 5 s.
const serverIdle = 500 * time.Millisecond

// A request that is not safe to repeat, sent in the moment when the server closes the
// idle connection, fails. With an idle_timeout below the server's, Envoy has closed the
// connection before. The rounds go through that moment in steps; without the timeout
// some must fail, or it is not the case that is meant.
func TestIdleTimeout_serverClosesIdleConnections_losesNoPost(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := repository.Build(t.Context(), dir, "./lab/init"); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		idle  time.Duration
		fails bool
	}{"below the server's": {serverIdle - 200*time.Millisecond, false}, "none": {0, true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			a := r.ServerClosingIdle("a", serverIdle)
			control := r.ControlPlane(fmt.Sprintf("defaults: {idle_timeout: %s}", test.idle), a.Device("tag:weight-1"))
			entry := control.Envoy("entry")
			entry.AwaitHealthy("server", 1)
			a.Slow(filepath.Join(dir, "init"), 60*time.Millisecond, entry.Host)
			laptop := r.Host("laptop")
			failed := 0
			for round := range 8 {
				for range 2 { // on a new connection, and then on that one at its end
					status, body, err := laptop.Once(harness.Post(entry.URL(10000), ""))
					if err != nil || status != http.StatusOK {
						failed++
						t.Logf("round %d: %d %s, %v", round, status, body, err)
					}
					time.Sleep(serverIdle - 80*time.Millisecond + time.Duration(round)*16*time.Millisecond) // it is what is tried
				}
			}
			if test.fails != (failed > 0) {
				t.Errorf("%d requests failed", failed)
			}
		})
	}
}

// A body that Envoy keeps is sent to another server when the first has stopped, which
// no check has found out yet. One that is longer is not.
func TestRetryBuffer_serverStopped_resendsBodiesThatFit(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		policy string
		size   int64
		fails  bool
	}{
		"1.5 MB, by default": {"", 1_500_000, false},
		"5 MB, by default":   {"", 5_000_000, false},
		"5 MB, of 1 MiB":     {"retry_buffer: 1MiB, ", 5_000_000, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			a, b := r.Server("a"), r.Server("b")
			for _, s := range []*harness.Server{a, b} {
				s.Handle(func(w http.ResponseWriter, request *http.Request) {
					n, err := io.Copy(io.Discard, request.Body)
					fmt.Fprintf(w, "%d bytes, %v", n, err)
				})
			}
			// No check and no ejection keeps requests from the one that stopped.
			policy := "defaults: {" + test.policy + "health_check: {interval: 1h}, outlier_detection: {max_ejection_percent: 0}}"
			entry := r.ControlPlane(policy, a.Device("tag:weight-1"), b.Device("tag:weight-1")).Envoy("entry")
			entry.AwaitHealthy("server", 2)
			a.Close()
			client := r.Host("laptop").Client()
			failed, sent := 0, 20
			for range sent {
				request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, entry.URL(10000), io.LimitReader(zeros{}, test.size))
				if err != nil {
					t.Fatal(err)
				}
				request.ContentLength = test.size
				answer, err := client.Do(request)
				if err != nil { // Envoy answers before it has read the body, and closes
					failed++
					continue
				}
				body, err := io.ReadAll(answer.Body)
				if answer.StatusCode != http.StatusOK || err != nil || string(body) != fmt.Sprintf("%d bytes, <nil>", test.size) {
					failed++
					if !test.fails {
						t.Logf("%d %s, %v", answer.StatusCode, strings.TrimSpace(string(body)), err)
					}
				}
				_ = answer.Body.Close()
			}
			if test.fails != (failed > 0) {
				t.Errorf("%d of %d requests failed", failed, sent)
			}
			if n := entry.Stat("cluster.server.upstream_cx_connect_fail"); n < sent/4 {
				t.Errorf("%d connections to the stopped server were tried: not the case that is meant", n)
			}
		})
	}
}
