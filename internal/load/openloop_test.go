package load

import (
	"context"
	"errors"
	"math"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener in memory, so that a test's clock is the only one.
type pipes struct {
	conns chan net.Conn
	over  chan struct{}
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.over:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.over) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// serve runs a server in memory for as long as f runs.
func serve(t *testing.T, handler http.HandlerFunc, f func(*pipes)) {
	t.Helper()
	l := &pipes{conns: make(chan net.Conn), over: make(chan struct{})}
	server := &http.Server{Handler: handler}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	f(l)
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}

// A server that answers nothing for the first 200 ms of every second keeps each
// request waiting until these are over. Of 1,000 that fall due evenly in a
// second, so many wait longer than x ms: 200-x. So the time that one in a
// hundred exceeds is 190 ms; a client that sends no request while it waits for
// an answer would see it in a handful of 800.
func TestRun_serverStalls_countsForEachWaitingRequest(t *testing.T) {
	for name, concurrency := range map[string]int{"a connection for each": 0, "eight connections": 8} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				stalling := func(w http.ResponseWriter, _ *http.Request) {
					if since := time.Since(began) % time.Second; since < 200*time.Millisecond {
						time.Sleep(200*time.Millisecond - since)
					}
					_, _ = w.Write([]byte("ok"))
				}
				serve(t, stalling, func(l *pipes) {
					r, err := Run(t.Context(), Options{URL: "http://west-1/", Rate: 1000, Duration: 4 * time.Second, Concurrency: concurrency, dial: l.dial})
					if err != nil || r.Answers["ok"] != 4_000 || r.Failed() != 0 {
						t.Fatalf("answers %v, failures %v, error %v; want 4,000", r.Answers, r.Failures, err)
					}
					for _, c := range []struct {
						percent float64
						want    time.Duration
					}{{50, 0}, {79.9, 0}, {85, 50 * time.Millisecond}, {99, 190 * time.Millisecond}, {99.9, 199 * time.Millisecond}} {
						if got := r.Latency.Percentile(c.percent); (got - c.want).Abs() > c.want/100+time.Millisecond {
							t.Errorf("p%v is %v, want %v", c.percent, got, c.want)
						}
					}
					if r.Latency.Max() < 199*time.Millisecond || r.Latency.Max() > 201*time.Millisecond {
						t.Errorf("the longest took %v, want 200 ms", r.Latency.Max())
					}
				})
			})
		})
	}
}

func TestRun_lateRequests_fallDueEvenly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		due := make(chan time.Time)
		go func() {
			defer close(due)
			Options{Rate: 3, Duration: 100 * time.Second}.schedule(t.Context(), began, due)
		}()
		n := 0
		for at := range due {
			if want := time.Duration(float64(n) / 3 * float64(time.Second)); (at.Sub(began) - want).Abs() > time.Microsecond {
				t.Fatalf("request %d is due after %v, want %v", n, at.Sub(began), want)
			}
			if time.Now().Before(at) {
				t.Fatalf("request %d is handed out before it is due", n)
			}
			if n++; n == 10 {
				time.Sleep(20 * time.Second) // nobody takes any
			}
		}
		if n != 300 || time.Since(began) > 100*time.Second {
			t.Errorf("%d requests in %v, want 300 within 100 s", n, time.Since(began))
		}
	})
}

func TestRun_closedLoop_endsWithItsDuration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(100 * time.Millisecond)
			_, _ = w.Write([]byte("ok"))
		}
		serve(t, slow, func(l *pipes) {
			r, err := Run(t.Context(), Options{URL: "http://west-1/", Duration: 950 * time.Millisecond, Concurrency: 4, dial: l.dial})
			if err != nil {
				t.Fatal(err)
			}
			// Each of four sends its last after 900 ms, and is answered.
			if r.Answered() != 40 || r.Failed() != 0 || r.Elapsed != time.Second {
				t.Errorf("%d answered, %d failed in %v; want 40 in 1 s", r.Answered(), r.Failed(), r.Elapsed)
			}
		})
	})
}

func TestRun_failedRequests_countInTheLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		never := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
		serve(t, never, func(l *pipes) {
			r, err := Run(t.Context(), Options{URL: "http://west-1/", Requests: 2, Rate: 10, Timeout: 300 * time.Millisecond, dial: l.dial})
			if err != nil || r.Failures["timed out"] != 2 {
				t.Fatalf("failures %v, error %v", r.Failures, err)
			}
			if got := r.Latency.Percentile(50); (got - 300*time.Millisecond).Abs() > time.Millisecond {
				t.Errorf("p50 is %v, want 300 ms", got)
			}
		})
	})
}

func TestRun_contextEndsBetweenRequests_stops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ok := func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) }
		serve(t, ok, func(l *pipes) {
			ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
			defer cancel()
			r, err := Run(ctx, Options{URL: "http://west-1/", Requests: 100, Rate: 1, dial: l.dial})
			if !errors.Is(err, context.DeadlineExceeded) || r.Answered() != 2 || r.Failed() != 0 || r.Elapsed != 1500*time.Millisecond {
				t.Errorf("%d answered, %d failed in %v, error %v; want 2 in 1.5 s", r.Answered(), r.Failed(), r.Elapsed, err)
			}
		})
	})
}

func TestPlanned_options_giveANumber(t *testing.T) {
	for _, c := range []struct {
		opts Options
		want int
	}{
		{Options{Requests: 7}, 7},
		{Options{Duration: time.Second}, 0},
		{Options{Rate: 10, Requests: 7}, 7},
		{Options{Rate: 10, Duration: time.Second}, 10},
		{Options{Rate: 10, Duration: 1050 * time.Millisecond}, 11},
		{Options{Rate: 10, Duration: time.Second, Requests: 7}, 7},
		{Options{Rate: 10, Duration: time.Second, Requests: 70}, 10},
		{Options{Rate: maxRate, Duration: 1 << 62}, math.MaxInt32},
	} {
		if got := c.opts.Planned(); got != c.want {
			t.Errorf("%+v plans %d, want %d", c.opts, got, c.want)
		}
	}
}
