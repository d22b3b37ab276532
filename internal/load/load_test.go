package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode"
)

func TestWrite_result_isByteForByte(t *testing.T) {
	for _, c := range []struct {
		name string
		r    Result
		want string
	}{
		{
			"equally frequent answers by text",
			Result{Answers: map[string]int{"Hello from west-2! in west": 10, "Hello from west-1! in west": 10}},
			"Hello from west-1! in west: 50.0% (10)\nHello from west-2! in west: 50.0% (10)\nFailed: 0\n",
		},
		{
			"most frequent first, failures last and out of the shares",
			Result{Answers: map[string]int{"a": 1, "z": 2}, Failures: map[string]int{"timed out": 3, "503": 1}},
			"z: 66.7% (2)\na: 33.3% (1)\nFailed: 4\n",
		},
		{"nothing but failures", Result{Failures: map[string]int{"timed out": 2}}, "Failed: 2\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b strings.Builder
			if err := c.r.Write(&b); err != nil {
				t.Fatal(err)
			}
			if b.String() != c.want {
				t.Errorf("got\n%swant\n%s", b.String(), c.want)
			}
		})
	}
}

func TestWriteReasons_failures_areCounted(t *testing.T) {
	var b strings.Builder
	if err := (Result{Failures: map[string]int{"timed out": 1, "503": 2}}).WriteReasons(&b); err != nil {
		t.Fatal(err)
	}
	if want := "2 × 503\n1 × timed out\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestWrite_failingWriter_isReported(t *testing.T) {
	r := Result{Failures: map[string]int{"x": 1}}
	if r.Write(failingWriter{}) == nil || r.WriteReasons(failingWriter{}) == nil {
		t.Error("a failing writer went unnoticed")
	}
}

func TestRun_answersAndFailures_areCounted(t *testing.T) {
	var n atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		switch n.Add(1) % 4 {
		case 0:
			http.Error(w, "no healthy upstream", http.StatusServiceUnavailable)
		case 1:
			fmt.Fprint(w, "two\nlines\n")
		default:
			fmt.Fprintln(w, "one")
		}
	}))
	defer srv.Close()

	var calls, last int
	r, err := Run(t.Context(), Options{URL: srv.URL, Requests: 400, Progress: func(done, _ int) {
		calls++
		last = done
	}})
	if err != nil {
		t.Fatal(err)
	}
	if r.Answers["one"] != 200 || r.Answers["two lines"] != 100 || len(r.Answers) != 2 {
		t.Errorf("answers = %v", r.Answers)
	}
	if r.Failures["503 Service Unavailable: no healthy upstream"] != 100 || r.Failed() != 100 {
		t.Errorf("failures = %v", r.Failures)
	}
	if calls != 400 || last != 400 {
		t.Errorf("progress was told %d times, lastly %d; want 400 and 400", calls, last)
	}
}

// What a server sends stays on one line of the report, and no terminal obeys it.
func TestRun_hostileAnswer_isHarmless(t *testing.T) {
	for sent, want := range map[string]string{
		"\x1b[2J\x1b]0;title\aHello\r\nfrom\tme\n":       "\ufffd[2J\ufffd]0;title\ufffdHello from me",
		"a\u0085b\u2028c\u009b2J\u202edef\u200b\x00\xff": "a b c\ufffd2J\ufffddef\ufffd\ufffd\ufffd",
		strings.Repeat("é", 200):                         strings.Repeat("é", 200),
		strings.Repeat("é ", 200):                        strings.Repeat("é ", 100) + "…",
		" \n\n ":                                         "",
	} {
		for _, status := range []int{http.StatusOK, http.StatusTeapot} {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(status)
				fmt.Fprint(w, sent)
			}))
			r, err := Run(t.Context(), Options{URL: srv.URL, Requests: 1})
			srv.Close()
			var b strings.Builder
			if err := errors.Join(err, r.Write(&b), r.WriteReasons(&b)); err != nil {
				t.Fatal(err)
			}
			if strings.ContainsFunc(b.String(), func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) || strings.Count(b.String(), "\n") != 2 {
				t.Errorf("%q is reported as %q", sent, b.String())
			}
			if _, answered := r.Answers[want]; status == http.StatusOK && !answered {
				t.Errorf("%q is reported as %v, want %q", sent, r.Answers, want)
			}
		}
	}
}

// A proxy can say in a status line what it wants, too.
func TestRun_hostileStatusLine_isHarmless(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = bufio.NewReader(c).ReadString('\n')
		fmt.Fprint(c, "HTTP/1.1 503 \x1b[2Jno\u202e\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
	}()
	r, err := Run(t.Context(), Options{URL: "http://" + l.Addr().String(), Requests: 1})
	if err != nil || r.Failures["503 \ufffd[2Jno\ufffd"] != 1 {
		t.Errorf("%v: %v", err, r.Failures)
	}
}

func TestRun_concurrency_isBoundedAndReusesConnections(t *testing.T) {
	var connections, inFlight, most atomic.Int64
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		now := inFlight.Add(1)
		defer inFlight.Add(-1)
		for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
		}
		fmt.Fprint(w, "ok")
	}))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	srv.Start()
	defer srv.Close()

	if _, err := Run(t.Context(), Options{URL: srv.URL, Requests: 300, Concurrency: 3}); err != nil {
		t.Fatal(err)
	}
	// One that was being made while another got free may be closed unused.
	if connections.Load() > 30 || most.Load() > 3 {
		t.Errorf("%d connections for 300 requests, %d of them at once; want 3 of each, or hardly more connections", connections.Load(), most.Load())
	}
}

func TestRun_failure_isNamed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	hang := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer hang.Close()
	cut := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer cut.Close()

	for _, c := range []struct{ name, url, want string }{
		{"refused", "http://" + gone, "connection refused"},
		{"hanging", hang.URL, "timed out"},
		{"cut off", cut.URL, "EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := Run(t.Context(), Options{URL: c.url, Requests: 3, Timeout: 200 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			if r.Failed() != 3 || len(r.Failures) != 1 {
				t.Fatalf("failures = %v, want one reason, three times", r.Failures)
			}
			for reason := range r.Failures {
				if !strings.Contains(reason, c.want) {
					t.Errorf("reason = %q, want one with %q", reason, c.want)
				}
			}
		})
	}
}

func TestRun_contextEnds_keepsItsCount(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }))
	defer srv.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	r, err := Run(ctx, Options{URL: srv.URL, Requests: 100_000, Progress: func(done, _ int) {
		if done == 5 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "of 100000 requests") {
		t.Fatalf("error = %v", err)
	}
	if r.Answered() < 5 || r.Answered() > 1000 || r.Failed() != 0 {
		t.Errorf("answered %d, failed %d; want a few answers, and what was cut off not counted as failed", r.Answered(), r.Failed())
	}
}

func TestRun_invalidOptions_areRefused(t *testing.T) {
	for _, c := range []struct {
		opts Options
		want string
	}{
		{Options{URL: "west-1:10000", Requests: 1}, "write it like http://"},
		{Options{URL: "ftp://west-1/", Requests: 1}, "write it like http://"},
		{Options{URL: "http://", Requests: 1}, "write it like http://"},
		{Options{URL: "http://west-1/"}, "must be 1 or more"},
		{Options{URL: "http://west-1/", Requests: -1, Duration: 1}, "must be 1 or more"},
		{Options{URL: "http://west-1/", Duration: -1, Requests: 1}, "the duration is -1ns"},
		{Options{URL: "http://west-1/", Requests: 1, Rate: -1}, "the rate is -1"},
		{Options{URL: "http://west-1/", Requests: 1, Rate: maxRate + 1}, "at most 1000000"},
		{Options{URL: "http://west-1/", Requests: 1, Rate: math.NaN()}, "the rate is NaN"},
		{Options{URL: "http://west-1/", Requests: 1, Concurrency: -1}, "concurrency is -1; it must be from 1 to 60000"},
		{Options{URL: "http://west-1/", Requests: 1, Concurrency: 60_001}, "concurrency"},
		{Options{URL: "http://west-1/", Requests: 1, Timeout: -1}, "timeout"},
	} {
		if _, err := Run(t.Context(), c.opts); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Run(%+v) = %v, want an error with %q", c.opts, err, c.want)
		}
	}
}
