package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Serve serves h on loopback until stop is called, which waits for its end.
func served(t *testing.T, h http.Handler) (address string, stop func() error) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, l, h) }()
	stop = func() error {
		cancel()
		err := <-ended
		ended <- err
		return err
	}
	t.Cleanup(func() { _ = stop() })
	return l.Addr().String(), stop
}

func TestServe_stopped_returnsOnceRequestsHaveEnded(t *testing.T) {
	running, finish := make(chan struct{}), make(chan struct{})
	var done atomic.Bool
	address, stop := served(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(running)
		<-finish
		done.Store(true)
		_, _ = io.WriteString(w, "all of it")
	}))
	answers := make(chan string, 1)
	go func() {
		answer, err := http.Get("http://" + address)
		if err != nil {
			answers <- err.Error()
			return
		}
		body, _ := io.ReadAll(answer.Body)
		answers <- string(body)
	}()
	<-running
	stopped := make(chan bool, 1)
	go func() {
		_ = stop()
		stopped <- done.Load()
	}()
	// New connections are refused from the moment on that it stops.
	for {
		c, err := net.Dial("tcp", address)
		if err != nil {
			break
		}
		_ = c.Close()
	}
	close(finish)
	if !<-stopped {
		t.Error("it returned while a request was running")
	}
	if got := <-answers; got != "all of it" {
		t.Errorf("the request was answered %q", got)
	}
}

func TestServe_requestThatDoesNotEnd_isCutOff(t *testing.T) {
	running := make(chan struct{})
	address, stop := served(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(running)
		<-r.Context().Done()
	}))
	go func() { _, _ = http.Get("http://" + address) }()
	<-running
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestServe_largeBodyOrHeader_isRefused(t *testing.T) {
	address, _ := served(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		}
	}))
	for size, want := range map[int]int{maxBody: 200, maxBody + 1: 413} {
		answer, err := http.Post("http://"+address, "text/plain", strings.NewReader(strings.Repeat("x", size)))
		if err != nil || answer.StatusCode != want {
			t.Errorf("%d bytes: %+v, %v", size, answer, err)
		}
	}
	request, _ := http.NewRequest(http.MethodGet, "http://"+address, nil)
	request.Header.Set("X-Long", strings.Repeat("x", 64<<10))
	if answer, err := http.DefaultClient.Do(request); err != nil || answer.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a long header: %+v, %v", answer, err)
	}
}

func TestServe_tooManyConnections_areClosedAndOthersServed(t *testing.T) {
	address, _ := served(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "here") }))
	open := func() (net.Conn, bool) {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return c, false
		}
		answer, err := http.ReadResponse(bufio.NewReader(c), nil)
		return c, err == nil && answer.StatusCode == http.StatusOK
	}
	var first net.Conn
	for i := range maxLoopback {
		c, ok := open()
		if !ok {
			t.Fatalf("connection %d is not served", i+1)
		}
		if first == nil {
			first = c
		}
	}
	if _, ok := open(); ok {
		t.Error("one more than there may be is served")
	}
	// Once one goes there is room for another.
	_ = first.Close()
	for {
		if _, ok := open(); ok {
			break
		}
	}
}

// fakeConn comes from somewhere.
type fakeConn struct {
	net.Conn
	from   string
	closed bool
}

func (c *fakeConn) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.from))
}
func (c *fakeConn) Close() error { c.closed = true; return nil }

func TestConnState_oneAddress_leavesRoomForOthers(t *testing.T) {
	l := newClientLimits(time.Now)
	var kept []*fakeConn
	open := func(from string) bool {
		c := &fakeConn{from: from}
		l.connState(c, http.StateNew)
		if c.closed {
			l.connState(c, http.StateClosed)
		} else {
			kept = append(kept, c)
		}
		return !c.closed
	}
	for i := range 2 * maxPerAddress {
		if got, want := open(fmt.Sprintf("100.64.0.9:%d", i+1)), i < maxPerAddress; got != want {
			t.Fatalf("connection %d of one address: %t", i+1, got)
		}
	}
	for i := range maxConnections + maxLoopback {
		open(fmt.Sprintf("[fd7a::%x]:1", i))
	}
	if len(kept) != maxConnections+maxLoopback {
		t.Errorf("%d are open", len(kept))
	}
	if !open("127.0.0.1:1") {
		t.Error("this machine is not served any more")
	}
	for _, c := range kept {
		l.connState(c, http.StateActive)
		l.connState(c, http.StateClosed)
	}
	if len(l.open) != 0 || len(l.connections) != 0 {
		t.Errorf("all are closed, and it counts %d of %d addresses", len(l.connections), len(l.open))
	}
}

func TestLimitRate_hostileAddress_isRefusedAndOthersServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newClientLimits(time.Now)
		h := l.limitRate(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		served := func(from string, times int) (ok int) {
			for range times {
				r, w := httptest.NewRequest(http.MethodGet, "/status", nil), httptest.NewRecorder()
				r.RemoteAddr = from
				h.ServeHTTP(w, r)
				switch w.Code {
				case http.StatusOK:
					ok++
				case http.StatusTooManyRequests:
				default:
					t.Fatalf("status %d", w.Code)
				}
			}
			return ok
		}
		if got := served("100.64.0.9:1", 1000); got != requestBurst {
			t.Errorf("of 1000 at once %d were served", got)
		}
		if got := served("[::ffff:100.64.0.9]:2", 10); got != 0 {
			t.Errorf("as IPv6 %d were served", got)
		}
		if served("100.64.0.8:1", 10) != 10 || served("127.0.0.1:1", 1000) != 1000 || served("[::1]:1", 1000) != 1000 {
			t.Error("others are refused")
		}
		time.Sleep(time.Second)
		if got := served("100.64.0.9:1", 1000); got != requestsPerSecond {
			t.Errorf("a second later %d were served", got)
		}
		for i := range 3 * maxAddresses {
			served(fmt.Sprintf("[fd7a::%x]:1", i), 1)
		}
		if len(l.rates) > maxAddresses {
			t.Errorf("%d addresses are remembered", len(l.rates))
		}
	})
}

func TestDiff_askedByMany_comparesOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most, read atomic.Int32
		h := DiffHandler(func(_ context.Context, body io.Reader) (any, error) {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			_, err := io.ReadAll(body)
			read.Add(1)
			time.Sleep(4 * time.Second)
			return nil, err
		})
		codes := make(chan int)
		for range 10 {
			go func() {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/diff", strings.NewReader("x")))
				codes <- w.Code
			}()
		}
		got := map[int]int{}
		for range 10 {
			got[<-codes]++
		}
		if got[200] != 2 || got[503] != 8 || most.Load() != 1 || read.Load() != 2 {
			t.Errorf("answers %v, %d at a time, %d read", got, most.Load(), read.Load())
		}
	})
}

func TestDiff_largeBody_isRefused(t *testing.T) {
	for size, want := range map[int]int{maxProposal: 200, maxProposal + 1: 413} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, "/diff", strings.NewReader(strings.Repeat("x", size)))
		r.RemoteAddr, r.Host = "127.0.0.1:5", "127.0.0.1"
		pages(true, nil).ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%d bytes: %d %s", size, w.Code, w.Body)
		}
	}
}
