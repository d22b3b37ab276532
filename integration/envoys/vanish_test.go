package envoys_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/tailxds/tailxds/integration/repository"

	"github.com/tailxds/tailxds/integration/harness"
)

// waitsAtMost is how long a request may wait for a server that has vanished: the 10 s
// until the kernel gives its connection up, and what a busy machine adds. Were it for
// Envoy, the request would end after its timeout of 15 s.
const waitsAtMost = 14 * time.Second

// pool is three servers of a service, and an Envoy that knows them.
type pool struct {
	*harness.Rig
	a, b, c *harness.Server
	control *harness.ControlPlane
	entry   *harness.Envoy
}

func newPool(t *testing.T, policy string, speak func(*http.Protocols), address func(*harness.Host) string) *pool {
	r := newRig(t)
	p := &pool{Rig: r, a: r.ServerSpeaking("a", speak), b: r.ServerSpeaking("b", speak), c: r.ServerSpeaking("c", speak)}
	var devices []harness.Device
	for _, s := range []*harness.Server{p.a, p.b, p.c} {
		d := s.Device("tag:weight-1")
		d.Addresses = []string{address(s.Host)}
		devices = append(devices, d)
	}
	p.control = r.ControlPlane(policy, devices...)
	p.entry = p.control.Envoy("entry")
	p.entry.AwaitHealthy("server", 3)
	return p
}

func byIPv4(h *harness.Host) string { return h.V4.String() }
func byIPv6(h *harness.Host) string { return h.V6.String() }
func speakHTTP1(p *http.Protocols)  { p.SetHTTP1(true) }
func speakHTTP2(p *http.Protocols)  { p.SetUnencryptedHTTP2(true) }
func buildClient(t *testing.T) (client string) {
	t.Helper()
	dir := t.TempDir()
	if err := repository.Build(t.Context(), dir, "./cmd/client"); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "client")
}

// One of three servers vanishes: its packets are dropped while requests fall due at a
// fixed rate, however slow answers come. No request fails, and none waits longer than
// for the kernel to give a connection up. That takes 10 s, so this test takes 14.
// TAILXDS_VANISH_RATE asks for another rate than the first, and for 14 s of it.
func TestEnvoy_serverVanishesUnderOpenLoop_losesNoRequest(t *testing.T) {
	t.Parallel()
	client := buildClient(t)
	most, long := 600, 4*time.Second
	if text := os.Getenv("TAILXDS_VANISH_RATE"); text != "" {
		var err error
		if most, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
		long = 14 * time.Second
	}
	for name, test := range map[string]struct {
		rate    int
		policy  string
		speak   func(*http.Protocols)
		address func(*harness.Host) string
	}{
		"http1":           {most, "", speakHTTP1, byIPv4},
		"http1 over IPv6": {100, "", speakHTTP1, byIPv6},
		"http2":           {100, "defaults: {protocol: http2}", speakHTTP2, byIPv4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPool(t, test.policy, test.speak, test.address)
			// Nothing of an answer that takes a while has left when the server vanishes, so
			// that a request waits for a server whose kernel has acknowledged it.
			waiting := make(chan struct{}, 1)
			p.a.Handle(func(w http.ResponseWriter, request *http.Request) {
				if request.URL.Path == "/slow" {
					waiting <- struct{}{}
					<-request.Context().Done()
				}
				p.a.Hello(w)
			})
			laptop := p.Host("laptop")
			slow := make(chan error, 1)
			go func() { slow <- p.askUntil(laptop, p.a) }()
			<-waiting
			vanish := time.AfterFunc(time.Second, func() {
				if err := p.a.CutOff(true); err != nil {
					t.Error(err)
				}
			})
			defer vanish.Stop()
			text, err := laptop.Run(client, "--rate", fmt.Sprint(test.rate), "--duration", long.String(), "--timeout", "20s",
				"--concurrency", fmt.Sprint(test.rate*4), "-o", "json", p.entry.URL(10000))
			var got counted
			if problem := json.Unmarshal([]byte(text), &got); problem != nil {
				t.Fatalf("%v; the client said %q: %v", problem, text, err)
			}
			answered := 0
			for _, a := range got.Answers {
				answered += a.Count
			}
			t.Logf("%d answered, %d failed, p99 %.0f ms, p99.9 %.0f ms, the slowest %.0f ms", answered, got.Failed, got.Latency["p99"], got.Latency["p99.9"], got.Latency["max"])
			if got.Failed > 0 || answered < test.rate*3 {
				t.Errorf("%d failed and %d were answered: %v", got.Failed, answered, err)
			}
			if slowest := time.Duration(got.Latency["max"] * float64(time.Millisecond)); slowest > waitsAtMost || slowest < time.Second {
				t.Errorf("the slowest took %s, want at most %s, and some that waited", slowest, waitsAtMost)
			}
			if err := <-slow; err != nil {
				t.Error(err)
			}
			p.entry.AwaitStats(map[string]int{"cluster.server.membership_healthy": 2})
		})
	}
}

// askUntil sends requests that take a while until one is with a server, and returns
// nil if that one, too, is answered in time.
func (p *pool) askUntil(from *harness.Host, at *harness.Server) error {
	for range 20 {
		before := at.Served.Load()
		begun := time.Now()
		status, body, err := from.Once(harness.Get(p.entry.URL(10000)+"slow", ""))
		if err != nil || status != http.StatusOK {
			return fmt.Errorf("a request that waits: %d %s, %w", status, body, err)
		}
		if took := time.Since(begun); took > waitsAtMost {
			return fmt.Errorf("a request that waits took %s", took)
		}
		if at.Served.Load() > before {
			return nil
		}
	}
	return fmt.Errorf("no request went to %s", at.Name)
}

// A connection of a tcp service whose server vanishes is closed, so that its client can
// connect again.
func TestEnvoy_serverOfConnectionVanishes_closesIt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	db := r.Host("db")
	db.Echo(5433)
	control := r.ControlPlane("services: {db: {protocol: tcp, listen: 5432}}", db.Device("tag:service-db", "tag:port-5433"))
	entry := control.Envoy("entry")
	entry.AwaitHealthy("db", 1)
	line, err := r.Host("laptop").Connect(t.Context(), net.JoinHostPort(entry.V4.String(), "5432"))
	if err != nil {
		t.Fatal(err)
	}
	defer line.Close()
	if err := line.RoundTrip("hello"); err != nil {
		t.Fatal(err)
	}
	if err := db.CutOff(true); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if err := line.RoundTrip("are you there?"); err == nil || isTimeout(err) || time.Since(begun) > waitsAtMost {
		t.Errorf("after %s: %v; want the connection's end", time.Since(begun), err)
	}
}

// A server may leave an upload unread for 9 s: its window is closed, and what waits for
// it is unacknowledged.
func TestEnvoy_serverReadsNothingForAWhile_uploadSurvives(t *testing.T) {
	t.Parallel()
	const size, pause = 30 << 20, 9 * time.Second
	r := newRig(t)
	a := r.Server("a")
	a.Handle(func(w http.ResponseWriter, request *http.Request) {
		time.Sleep(pause) // it is what is tried
		n, err := io.Copy(io.Discard, request.Body)
		fmt.Fprintf(w, "%d bytes, %v", n, err)
	})
	entry := r.ControlPlane("", a.Device("tag:weight-1")).Envoy("entry")
	entry.AwaitHealthy("server", 1)
	client := r.Host("laptop").Client()
	client.Timeout = time.Minute
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, entry.URL(10000), io.LimitReader(zeros{}, size))
	if err != nil {
		t.Fatal(err)
	}
	request.ContentLength = size
	begun := time.Now()
	answer, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if want := fmt.Sprintf("%d bytes, <nil>", size); err != nil || answer.StatusCode != http.StatusOK || string(body) != want {
		t.Errorf("after %s: %d %s, %v; want %s", time.Since(begun), answer.StatusCode, body, err, want)
	}
	if took := time.Since(begun); took < pause {
		t.Errorf("it took %s, and the server paused for %s: not the case that is meant", took, pause)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// A server that drains fails its checks and ends what it is working on.
func TestEnvoy_serverFailsChecksWhileItWorks_requestSurvives(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, b := r.Server("a"), r.Server("b")
	working, drained := make(chan struct{}), make(chan struct{})
	a.Handle(func(w http.ResponseWriter, _ *http.Request) {
		close(working)
		<-drained
		a.Hello(w)
	})
	control := r.ControlPlane("", a.Device("tag:weight-1"))
	entry := control.Envoy("entry")
	entry.AwaitHealthy("server", 1)
	type answer struct {
		status int
		body   string
		err    error
	}
	got := make(chan answer)
	go func() {
		status, body, err := r.Host("laptop").Once(harness.Post(entry.URL(10000), ""))
		got <- answer{status, body, err}
	}()
	<-working
	control.SetDevices(a.Device("tag:weight-1"), b.Device("tag:weight-1"))
	a.SetUnhealthy(true)
	entry.AwaitStats(map[string]int{"cluster.server.membership_healthy": 1, "cluster.server.membership_total": 2})
	close(drained)
	if a := <-got; a.err != nil || a.status != http.StatusOK {
		t.Errorf("the request in its hands: %d %s, %v", a.status, a.body, a.err)
	}
}

// When all servers fail, retries are bounded by a number, and not by the number of
// requests that fail.
func TestLimitsRetries_allRequestsFailAtOnce_boundsRetries(t *testing.T) {
	t.Parallel()
	const burst, bound = 40, 3
	r := newRig(t)
	a := r.Server("a")
	arrived, fail, release := make(chan struct{}, 10*burst), make(chan struct{}), make(chan struct{})
	a.Handle(func(w http.ResponseWriter, _ *http.Request) {
		first := a.Served.Load() <= burst
		arrived <- struct{}{}
		if first {
			<-fail // all of them together
		} else {
			<-release // a retry lasts
		}
		http.Error(w, "no", http.StatusServiceUnavailable)
	})
	policy := fmt.Sprintf("defaults: {limits: {retries: %d}, outlier_detection: {max_ejection_percent: 0}}", bound)
	entry := r.ControlPlane(policy, a.Device("tag:weight-1")).Envoy("entry")
	entry.AwaitHealthy("server", 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	laptop := r.Host("laptop")
	for range burst {
		go func() {
			request, err := harness.Get(entry.URL(10000), "")(ctx)
			if err == nil {
				var answer *http.Response
				if answer, err = laptop.Client().Do(request); err == nil {
					_ = answer.Body.Close()
				}
			}
		}()
	}
	for range burst {
		<-arrived
	}
	close(fail)
	for range bound {
		<-arrived
	}
	// All others have failed by then: none waits for its turn to be tried again.
	entry.AwaitStats(map[string]int{"cluster.server.upstream_rq_retry_overflow": burst - bound})
	if n := a.Served.Load(); n != burst+bound {
		t.Errorf("the server got %d requests, want %d and %d retries", n, burst, bound)
	}
	close(release)
}
