package peersync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailxds/tailxds/internal/drain"
)

func record(n int) drain.Record {
	return drain.Record{
		Provider: "p", Device: fmt.Sprint(n), Name: fmt.Sprintf("d%d", n), Addresses: []netip.Addr{netip.AddrFrom4([4]byte{100, 64, 0, byte(n)})},
		Drain: true, By: "op", At: time.Date(1999, 12, 31, 12, 0, n, 0, time.UTC), // before the clock of synctest begins
	}
}

// config is one whose dial reaches what to answers.
func config(to *http.Server, names ...string) Config {
	return Config{
		Names: names, Log: slog.New(slog.DiscardHandler),
		PeerName: func(context.Context, string) (string, error) { return "Other.example.ts.net", nil },
		Receive:  func(context.Context, []drain.Record) {},
		Dial: func(context.Context, string, string) (net.Conn, error) {
			here, there := net.Pipe()
			l := &oneConn{conn: there, end: make(chan struct{})}
			go func() { _ = to.Serve(l) }()
			return &closing{here, l.close}, nil
		},
	}
}

// oneConn is a listener that has one connection.
type oneConn struct {
	conn net.Conn
	end  chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	<-l.end
	return nil, net.ErrClosed
}
func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }
func (l *oneConn) close() {
	select {
	case <-l.end:
	default:
		close(l.end)
	}
}

type closing struct {
	net.Conn
	also func()
}

func (c *closing) Close() error { c.also(); return c.Conn.Close() }

// A record arrives at once, and its sender learns that it did.
func TestRun_recordAdded_isReceivedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sender := New(config(nil, "other:80", "absent"))
		server := &http.Server{Handler: sender}
		received := make(chan []drain.Record, 10)
		c := config(server, "sender")
		c.Receive = func(_ context.Context, records []drain.Record) { received <- records }
		receiver := New(c)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- receiver.Run(ctx) }()
		synctest.Wait()
		if first := <-received; len(first) != 0 {
			t.Errorf("at first: %v", first)
		}
		// Longer than an answer waits, so that it has asked anew meanwhile.
		time.Sleep(3*maxWait + time.Second)
		began := time.Now()
		sender.Publish([]drain.Record{record(1)}, nil)
		if got := <-received; len(got) != 1 || got[0].Name != "d1" || time.Since(began) > 0 {
			t.Errorf("received %v after %v", got, time.Since(began))
		}
		synctest.Wait()
		states := sender.States()
		if !states[0].Synced || !states[0].LastPoll.Equal(began) || states[1].Synced || !states[1].LastPoll.IsZero() {
			t.Errorf("who knows: %+v", states)
		}
		if s := receiver.States()[0]; s.Error != "" || !s.LastAnswer.Equal(began) || s.Synced {
			t.Errorf("who was received: %+v", s)
		}
		// The same again is no news.
		sender.Publish([]drain.Record{record(1)}, nil)
		synctest.Wait()
		if len(received) > 0 {
			t.Error("it was told twice")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = server.Close()
	})
}

func TestWaitSynced_peers_waitsForAllOrTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := New(config(nil, "other"))
		e.Publish([]drain.Record{record(1)}, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if s := e.WaitSynced(ctx); s[0].Synced {
			t.Errorf("nobody asked: %+v", s)
		}
		known := make(chan []State)
		go func() { known <- e.WaitSynced(t.Context()) }()
		synctest.Wait()
		e.recordPoll("somebody-else", e.own.Version)
		e.recordPoll("other", "an older one")
		synctest.Wait()
		select {
		case s := <-known:
			t.Fatalf("too soon: %+v", s)
		default:
		}
		e.recordPoll("OTHER.example.ts.net", e.own.Version)
		if s := <-known; !s[0].Synced {
			t.Errorf("it knows: %+v", s)
		}
	})
}

func TestConnected_peersEnvoys_countWhileItAnswersAndAWhileAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("fd7a::2")
		sender := New(config(nil, "other"))
		sender.Publish([]drain.Record{record(1)}, map[netip.Addr]bool{first: true})
		server := &http.Server{Handler: sender}
		c := config(server, "sender")
		dial := c.Dial
		var away atomic.Bool
		c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if away.Load() {
				return nil, errors.New("no route")
			}
			return dial(ctx, network, address)
		}
		received := make(chan time.Time, 1000)
		c.Receive = func(context.Context, []drain.Record) { received <- time.Now() }
		receiver := New(c)
		if got := receiver.Connected(); len(got) > 0 {
			t.Errorf("nobody was asked, and %v are connected", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- receiver.Run(ctx) }()
		<-received
		synctest.Wait()
		if got := receiver.Connected(); !slices.Equal(got, []netip.Addr{first}) || !sender.States()[0].Synced {
			t.Errorf("connected to the other: %v; it knows the word: %+v", got, sender.States()[0])
		}

		// A storm of streams is reported once a second, and is no other set of drains.
		for range 50 {
			sender.Publish([]drain.Record{record(1)}, map[netip.Addr]bool{first: true, second: true})
			time.Sleep(100 * time.Millisecond)
			sender.Publish([]drain.Record{record(1)}, nil)
			time.Sleep(100 * time.Millisecond)
			if !sender.States()[0].Synced {
				t.Fatal("a stream makes another version of the drains")
			}
		}
		if n := len(received); n > 10+changeBurst+1 {
			t.Errorf("received %d times in 10 s", n)
		}
		sender.Publish([]drain.Record{record(1)}, map[netip.Addr]bool{second: true})
		time.Sleep(2 * changeInterval)
		if got := receiver.Connected(); !slices.Equal(got, []netip.Addr{second}) {
			t.Errorf("connected: %v", got)
		}

		away.Store(true)
		time.Sleep(maxWait) // the answer that is under way
		last := receiver.States()[0].LastAnswer
		time.Sleep(time.Until(last.Add(connectedTTL - 1)))
		if got := receiver.Connected(); !slices.Equal(got, []netip.Addr{second}) {
			t.Errorf("its Envoys are on their way, and %v are connected", got)
		}
		time.Sleep(time.Nanosecond)
		if got := receiver.Connected(); len(got) > 0 {
			t.Errorf("it is long away, and %v are connected", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = server.Close()
	})
}

func TestRun_unreachablePeer_isRetriedAndLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sender := New(config(nil))
		sender.Publish([]drain.Record{record(1)}, nil)
		server := &http.Server{Handler: sender}
		c := config(server, "sender")
		dial := c.Dial
		var up atomic.Bool
		var dials atomic.Int32
		c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			dials.Add(1)
			if address != "sender:80" {
				t.Errorf("it dials %s", address)
			}
			if !up.Load() {
				return nil, errors.New("no route")
			}
			return dial(ctx, network, address)
		}
		received := make(chan []drain.Record, 10)
		c.Receive = func(_ context.Context, records []drain.Record) { received <- records }
		var log bytes.Buffer
		c.Log = slog.New(slog.NewTextHandler(&log, nil))
		e := New(c)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- e.Run(ctx) }()
		time.Sleep(4*retryDelay + retryDelay/2)
		synctest.Wait()
		if s := e.States()[0]; s.Error != "poll sender: no route" || dials.Load() != 5 {
			t.Errorf("%+v after %d dials", s, dials.Load())
		}
		up.Store(true)
		if got := <-received; len(got) != 1 {
			t.Errorf("received %v", got)
		}
		synctest.Wait()
		if s := e.States()[0]; s.Error != "" {
			t.Errorf("it is there: %+v", s)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = server.Close()
		if out := log.String(); strings.Count(out, "cannot receive drains from") != 1 || strings.Count(out, "receiving drains from another control plane again") != 1 {
			t.Errorf("the log:\n%s", out)
		}
	})
}

func TestPoll_invalidAnswer_isRefusedAsAWhole(t *testing.T) {
	for want, answers := range map[string]http.HandlerFunc{
		"it answers 403 Forbidden: \"not you\\n\"": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "not you", http.StatusForbidden) },
		"invalid answer": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"version":`) },
		"has no version": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"drains":[]}`) },
		"needs a device ID": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"version":"1","drains":[{"name":"x"}]}`)
		},
		"drains: holds more than 1000 entries": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"version":"1","drains":[{}`+strings.Repeat(",{}", drain.MaxRecords)+`]}`)
		},
		"connected: holds more than 10000 entries": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"version":"1","connected":[""`+strings.Repeat(`,""`, maxConnected)+`]}`)
		},
		"it has no version": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"version":"`+strings.Repeat("1", maxVersion+1)+`"}`)
		},
		`the drain of "d" is dated 9999-12-31T23:59:59Z, which is ahead`: func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"version":"1","drains":[{"provider":"p","device":"1","name":"d","drain":true,"by":"op","at":"9999-12-31T23:59:59Z"}]}`)
		},
		`the drain of "d" lasts longer than 366 days`: func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"version":"1","drains":[{"provider":"p","device":"1","name":"d","drain":true,"by":"op","at":"2026-01-01T00:00:00Z","until":"9999-12-31T23:59:59Z"}]}`)
		},
		"is longer than": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(bytes.Repeat([]byte(" "), maxBytes+1))
		},
	} {
		s := httptest.NewServer(answers)
		c := config(nil, "it")
		c.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, s.Listener.Addr().String())
		}
		if a, err := New(c).poll(t.Context(), "it", ""); err == nil || !strings.HasPrefix(err.Error(), "poll it: ") || !strings.Contains(err.Error(), want) || len(a.Drains) > 0 {
			t.Errorf("%s: %v, %v", want, a, err)
		}
		s.Close()
	}
}

// FuzzDecode never panics, and what it takes makes sense.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"version":"1","drains":[{"provider":"p","device":"1","name":"d","addresses":["100.64.0.1"],"drain":true,"by":"op","at":"2026-06-01T12:00:00Z"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := decode(body, time.Now())
		if err != nil {
			return
		}
		for _, w := range a.Drains {
			if err := w.Check(); err != nil {
				t.Error(err)
			}
		}
		drain.NewSet(a.Drains).Drains(time.Now())
	})
}

// A peer that changes all the time costs a few reconciles at once, and one a second
// then.
func TestRun_peerThatChangesAllTheTime_isPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprintf(w, `{"version":"%d-0","drains":[]}`, asked.Add(1))
		})}
		c := config(server, "flood")
		var received atomic.Int32
		c.Receive = func(context.Context, []drain.Record) { received.Add(1) }
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- New(c).Run(ctx) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := received.Load(); got < 30 || got > 60+changeBurst+1 {
			t.Errorf("it was received %d times in a minute", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = server.Close()
	})
}

func TestPublish_tooMuch_isCutToWhatPeersAccept(t *testing.T) {
	e := New(config(nil))
	var records []drain.Record
	connected := make(map[netip.Addr]bool)
	for n := range 3 * drain.MaxRecords {
		w := record(1)
		w.Device, w.MissingSince = fmt.Sprint(n), w.At
		w.Addresses = []netip.Addr{netip.AddrFrom4([4]byte{100, 65, byte(n >> 8), byte(n)})}
		records = append(records, w)
	}
	for n := range 2 * maxConnected {
		connected[netip.AddrFrom4([4]byte{100, 66, byte(n >> 8), byte(n)})] = true
	}
	e.Publish(records, connected)
	w := httptest.NewRecorder()
	e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, Path, nil))
	a, err := decode(w.Body.Bytes(), time.Now())
	if err != nil || w.Body.Len() > maxBytes || len(a.Drains) != drain.MaxRecords || len(a.Connected) != maxConnected {
		t.Errorf("%d records and %d connected in %d bytes, %v", len(a.Drains), len(a.Connected), w.Body.Len(), err)
	}
	if strings.Contains(w.Body.String(), "missingSince") {
		t.Error("it tells what others are to find out")
	}
	w = httptest.NewRecorder()
	e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, Path+"?version="+strings.Repeat("x", maxVersion+1), nil))
	if w.Code != http.StatusBadRequest {
		t.Errorf("a long version: %d", w.Code)
	}
}
