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

func word(n int) drain.Record {
	return drain.Record{
		Provider: "p", Device: fmt.Sprint(n), Name: fmt.Sprintf("d%d", n), Addresses: []netip.Addr{netip.AddrFrom4([4]byte{100, 64, 0, byte(n)})},
		Drain: true, By: "op", At: time.Date(1999, 12, 31, 12, 0, n, 0, time.UTC), // before the clock of synctest begins
	}
}

// config is one whose dial reaches what to answers.
func config(to *http.Server, names ...string) Config {
	return Config{
		Names: names, Log: slog.New(slog.DiscardHandler),
		Who:   func(context.Context, string) (string, error) { return "Other.example.ts.net", nil },
		Heard: func(context.Context, []drain.Record) {},
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

// A word is heard at once, by who waits for it, and who heard it is known.
func TestAWordIsHeardAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		teller := New(config(nil, "other:80", "absent"))
		server := &http.Server{Handler: teller}
		heard := make(chan []drain.Record, 10)
		c := config(server, "teller")
		c.Heard = func(_ context.Context, words []drain.Record) { heard <- words }
		listener := New(c)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- listener.Run(ctx) }()
		synctest.Wait()
		if first := <-heard; len(first) != 0 {
			t.Errorf("at first: %v", first)
		}
		// Longer than an answer waits, so that it has asked anew meanwhile.
		time.Sleep(3*patience + time.Second)
		began := time.Now()
		teller.Publish([]drain.Record{word(1)}, nil)
		if got := <-heard; len(got) != 1 || got[0].Name != "d1" || time.Since(began) > 0 {
			t.Errorf("heard %v after %v", got, time.Since(began))
		}
		synctest.Wait()
		states := teller.States()
		if !states[0].Knows || !states[0].Asked.Equal(began) || states[1].Knows || !states[1].Asked.IsZero() {
			t.Errorf("who knows: %+v", states)
		}
		if s := listener.States()[0]; s.Error != "" || !s.Heard.Equal(began) || s.Knows {
			t.Errorf("who was heard: %+v", s)
		}
		// The same again is no news.
		teller.Publish([]drain.Record{word(1)}, nil)
		synctest.Wait()
		if len(heard) > 0 {
			t.Error("it was told twice")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = server.Close()
	})
}

func TestKnownWaitsForAllOrTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := New(config(nil, "other"))
		e.Publish([]drain.Record{word(1)}, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if s := e.Known(ctx); s[0].Knows {
			t.Errorf("nobody asked: %+v", s)
		}
		known := make(chan []State)
		go func() { known <- e.Known(t.Context()) }()
		synctest.Wait()
		e.asked("somebody-else", e.told.Version)
		e.asked("other", "an older one")
		synctest.Wait()
		select {
		case s := <-known:
			t.Fatalf("too soon: %+v", s)
		default:
		}
		e.asked("OTHER.example.ts.net", e.told.Version)
		if s := <-known; !s[0].Knows {
			t.Errorf("it knows: %+v", s)
		}
	})
}

// Whose Envoys are connected to one control plane is known to the other, soon,
// and for a while after that is away. It is no word that must be known.
func TestWhoIsConnectedElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("fd7a::2")
		teller := New(config(nil, "other"))
		teller.Publish([]drain.Record{word(1)}, map[netip.Addr]bool{first: true})
		server := &http.Server{Handler: teller}
		c := config(server, "teller")
		dial := c.Dial
		var away atomic.Bool
		c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if away.Load() {
				return nil, errors.New("no route")
			}
			return dial(ctx, network, address)
		}
		heard := make(chan time.Time, 1000)
		c.Heard = func(context.Context, []drain.Record) { heard <- time.Now() }
		listener := New(c)
		if got := listener.Connected(); len(got) > 0 {
			t.Errorf("nobody was asked, and %v are connected", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- listener.Run(ctx) }()
		<-heard
		synctest.Wait()
		if got := listener.Connected(); !slices.Equal(got, []netip.Addr{first}) || !teller.States()[0].Knows {
			t.Errorf("connected to the other: %v; it knows the word: %+v", got, teller.States()[0])
		}

		// A storm of streams is heard of once a second; a word is not held up by more.
		for range 50 {
			teller.Publish([]drain.Record{word(1)}, map[netip.Addr]bool{first: true, second: true})
			time.Sleep(again / 10)
			teller.Publish([]drain.Record{word(1)}, nil)
			time.Sleep(again / 10)
			if !teller.States()[0].Knows {
				t.Fatal("a stream is taken for a word that the other does not know")
			}
		}
		if n := len(heard); n < 9 || n > 11 {
			t.Errorf("heard %d times in 10 s", n)
		}
		teller.Publish([]drain.Record{word(1)}, map[netip.Addr]bool{second: true})
		time.Sleep(2 * again)
		if got := listener.Connected(); !slices.Equal(got, []netip.Addr{second}) {
			t.Errorf("connected: %v", got)
		}

		away.Store(true)
		time.Sleep(patience) // the answer that is under way
		last := listener.States()[0].Heard
		time.Sleep(time.Until(last.Add(believedFor - 1)))
		if got := listener.Connected(); !slices.Equal(got, []netip.Addr{second}) {
			t.Errorf("its Envoys are on their way, and %v are connected", got)
		}
		time.Sleep(time.Nanosecond)
		if got := listener.Connected(); len(got) > 0 {
			t.Errorf("it is long away, and %v are connected", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = server.Close()
	})
}

// One that can't be asked is asked again, told once, and heard from its start.
func TestOneThatIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		teller := New(config(nil))
		teller.Publish([]drain.Record{word(1)}, nil)
		server := &http.Server{Handler: teller}
		c := config(server, "teller")
		dial := c.Dial
		var up atomic.Bool
		var dials atomic.Int32
		c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			dials.Add(1)
			if address != "teller:80" {
				t.Errorf("it dials %s", address)
			}
			if !up.Load() {
				return nil, errors.New("no route")
			}
			return dial(ctx, network, address)
		}
		heard := make(chan []drain.Record, 10)
		c.Heard = func(_ context.Context, words []drain.Record) { heard <- words }
		var log bytes.Buffer
		c.Log = slog.New(slog.NewTextHandler(&log, nil))
		e := New(c)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- e.Run(ctx) }()
		time.Sleep(4*again + again/2)
		synctest.Wait()
		if s := e.States()[0]; s.Error != "ask teller: no route" || dials.Load() != 5 {
			t.Errorf("%+v after %d dials", s, dials.Load())
		}
		up.Store(true)
		if got := <-heard; len(got) != 1 {
			t.Errorf("heard %v", got)
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
		if out := log.String(); strings.Count(out, "can't be asked") != 1 || strings.Count(out, "can be asked again") != 1 {
			t.Errorf("the log:\n%s", out)
		}
	})
}

func TestAnAnswerIsWholeOrRefused(t *testing.T) {
	for want, answers := range map[string]http.HandlerFunc{
		"it answers 403 Forbidden: \"not you\\n\"": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "not you", http.StatusForbidden) },
		"its answer makes no sense":                func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"version":`) },
		"has no version":                           func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"words":[]}`) },
		"names no device": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"version":"1","words":[{"name":"x"}]}`)
		},
		"words: holds more than 1000 entries": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"version":"1","words":[{}`+strings.Repeat(",{}", drain.MaxRecords)+`]}`)
		},
		"connected: holds more than 10000 entries": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"version":"1","connected":[""`+strings.Repeat(`,""`, maxConnected)+`]}`)
		},
		"it has no version": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"version":"`+strings.Repeat("1", maxVersion+1)+`"}`)
		},
		`the drain of "d" is dated 9999-12-31T23:59:59Z, which is ahead`: func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"version":"1","words":[{"provider":"p","device":"1","name":"d","drain":true,"by":"op","at":"9999-12-31T23:59:59Z"}]}`)
		},
		`the drain of "d" lasts longer than 366 days`: func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"version":"1","words":[{"provider":"p","device":"1","name":"d","drain":true,"by":"op","at":"2026-01-01T00:00:00Z","until":"9999-12-31T23:59:59Z"}]}`)
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
		if a, err := New(c).ask(t.Context(), "it", ""); err == nil || !strings.HasPrefix(err.Error(), "ask it: ") || !strings.Contains(err.Error(), want) || len(a.Words) > 0 {
			t.Errorf("%s: %v, %v", want, a, err)
		}
		s.Close()
	}
}

// FuzzRead never panics, and what it takes makes sense.
func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"version":"1","words":[{"provider":"p","device":"1","name":"d","addresses":["100.64.0.1"],"drain":true,"by":"op","at":"2026-06-01T12:00:00Z"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := read(body, time.Now())
		if err != nil {
			return
		}
		for _, w := range a.Words {
			if err := w.Check(); err != nil {
				t.Error(err)
			}
		}
		drain.NewSet(a.Words).Drains(time.Now())
	})
}

// One that has news all the time is heard a few times at once, and once a second
// then.
func TestRun_peerThatChangesAllTheTime_isPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprintf(w, `{"version":"%d-0","words":[]}`, asked.Add(1))
		})}
		c := config(server, "flood")
		var heard atomic.Int32
		c.Heard = func(context.Context, []drain.Record) { heard.Add(1) }
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- New(c).Run(ctx) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := heard.Load(); got < 30 || got > 60+answersBurst+1 {
			t.Errorf("it was heard %d times in a minute", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = server.Close()
	})
}

// What is told is no more than others take.
func TestTell_tooMuch_isCutToWhatOthersTake(t *testing.T) {
	e := New(config(nil))
	var words []drain.Record
	connected := make(map[netip.Addr]bool)
	for n := range 3 * drain.MaxRecords {
		w := word(1)
		w.Device, w.MissingSince = fmt.Sprint(n), w.At
		w.Addresses = []netip.Addr{netip.AddrFrom4([4]byte{100, 65, byte(n >> 8), byte(n)})}
		words = append(words, w)
	}
	for n := range 2 * maxConnected {
		connected[netip.AddrFrom4([4]byte{100, 66, byte(n >> 8), byte(n)})] = true
	}
	e.Publish(words, connected)
	w := httptest.NewRecorder()
	e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, Path, nil))
	a, err := read(w.Body.Bytes(), time.Now())
	if err != nil || w.Body.Len() > maxBytes || len(a.Words) != drain.MaxRecords || len(a.Connected) != maxConnected {
		t.Errorf("%d words and %d connected in %d bytes, %v", len(a.Words), len(a.Connected), w.Body.Len(), err)
	}
	if strings.Contains(w.Body.String(), "missingSince") {
		t.Error("it tells what others are to find out")
	}
	w = httptest.NewRecorder()
	e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, Path+"?seen="+strings.Repeat("x", maxVersion+1), nil))
	if w.Code != http.StatusBadRequest {
		t.Errorf("a long version: %d", w.Code)
	}
}
