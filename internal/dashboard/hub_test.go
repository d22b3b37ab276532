package dashboard

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// views shows services whose facts a test sets.
type views struct {
	mu     sync.Mutex
	now    View
	looked []string
	views  int // that were made
}

// look shows each service by its name, and by unknown ones the first.
func (v *views) look(services []string) (all []*View) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.looked = append(v.looked, services...)
	known := make(map[string]*View)
	for _, service := range services {
		if strings.HasPrefix(service, "unknown") {
			service = "hello"
		}
		if known[service] == nil {
			view := v.now
			view.Snapshot.Service = service
			known[service] = &view
			v.views++
		}
		all = append(all, known[service])
	}
	return all
}

// noView shows nothing.
func noView(services []string) []*View { return slices.Repeat([]*View{{}}, len(services)) }

func (v *views) set(change func(*View)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	change(&v.now)
}

// running serves a page with a door until the test ends. The server's deadlines
// are short, and a stream outlives them.
func running(t *testing.T, v *views, door Authorizer) (page *Dashboard, url string, stop func()) {
	t.Helper()
	var d did
	source := d.source()
	source.Views = v.look
	page = New(source)
	door.AllowsHost = func(context.Context, string) bool { return true }
	server := httptest.NewUnstartedServer(page.Handler(door))
	server.Config.ReadTimeout, server.Config.WriteTimeout = 200*time.Millisecond, 200*time.Millisecond
	server.Start()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- page.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		server.Close() // it waits for the streams, which end with the hub
	})
	return page, server.URL, cancel
}

// listener reads a stream's events.
type listener struct {
	t     *testing.T
	lines *bufio.Scanner
}

func listen(t *testing.T, url string) listener {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = answer.Body.Close() })
	if answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%d %v", answer.StatusCode, answer.Header)
	}
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 1<<20)
	return listener{t, lines}
}

var errEnded = errors.New("the stream has ended")

// next is the next event and its data.
func (l listener) next() (event, data string, err error) {
	for l.lines.Scan() {
		if name, ok := strings.CutPrefix(l.lines.Text(), "event: "); ok {
			l.lines.Scan()
			return name, strings.TrimPrefix(l.lines.Text(), "data: "), nil
		}
	}
	return "", "", errEnded
}

// end reads on until the stream ends.
func (l listener) end() {
	for {
		if _, _, err := l.next(); err != nil {
			return
		}
	}
}

// await skips to an event whose data has something in it.
func (l listener) await(event, with string) (skipped []string) {
	l.t.Helper()
	for {
		name, data, err := l.next()
		if err != nil {
			l.t.Fatalf("no %s with %s: %v", event, with, err)
		}
		if name == event && strings.Contains(data, with) {
			return skipped
		}
		skipped = append(skipped, name)
	}
}

func TestRun_viewChanges_pageGetsIt(t *testing.T) {
	v := &views{now: View{Snapshot: Snapshot{Version: "one"}, Tick: Tick{At: 1}}}
	page, url, _ := running(t, v, as(RoleView))
	l := listen(t, url+"/live?service=hello")
	l.await("viewer", `{"name":"somebody","role":"view"}`)
	l.await("snapshot", `"version":"one"`)
	l.await("history", `"start":0`)
	l.await("tick", `"at":1`)
	// What did not change is not told again; figures are.
	v.set(func(v *View) { v.Tick.At = 2 })
	for _, event := range l.await("tick", `"at":2`) {
		if event != "tick" {
			t.Errorf("an unchanged %s is told again", event)
		}
	}
	v.set(func(v *View) { v.Snapshot.Version = "two" })
	page.Changed()
	l.await("snapshot", `"version":"two"`)
	v.set(func(v *View) { v.History.Start = 5 })
	l.await("history", `"start":5`)
}

// Whoever comes second is told at once what the first one sees, and what nobody
// has open is not looked at.
func TestRun_manyPages_oneView(t *testing.T) {
	v := &views{}
	page, url, _ := running(t, v, as(RoleView))
	first := listen(t, url+"/live?service=hello")
	first.await("tick", "")
	second := listen(t, url+"/live?service=hello")
	second.await("snapshot", `"assets":"`+page.files.hash+`"`)
	second.await("tick", "")
	other := listen(t, url+"/live?service=other")
	other.await("snapshot", `"service":"other"`)
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, service := range v.looked {
		if service != "hello" && service != "other" {
			t.Errorf("looked at %q, which nobody has open", service)
		}
	}
}

func TestHandler_roleIsTakenAway_streamEnds(t *testing.T) {
	var role atomic.Value
	role.Store(RoleOperate)
	door := Authorizer{Identify: func(*http.Request) (Viewer, error) { return Viewer{"somebody", role.Load().(Role)}, nil }}
	_, url, _ := running(t, &views{}, door)
	for _, next := range []Role{RoleView, RoleNone} {
		l := listen(t, url+"/live")
		l.await("tick", "")
		role.Store(next)
		l.end()
	}
	answer, err := http.Get(url + "/live")
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusForbidden {
		t.Errorf("without a role: %d", answer.StatusCode)
	}
}

func TestRun_ends_streamsEnd(t *testing.T) {
	_, url, stop := running(t, &views{}, as(RoleView))
	l := listen(t, url+"/live")
	l.await("tick", "")
	stop()
	l.end()
}

// A page that is too slow gets the last of everything, and figures never before
// what they count on.
func TestRun_slowPage_getsTheLast(t *testing.T) {
	h := newHub(noView, "")
	p := h.join("", netip.Addr{})
	p.put([]byte("s1"), []byte("t1"), []byte("h1"))
	p.put(nil, []byte("t2"), nil)
	p.put([]byte("s2"), []byte("t3"), nil)
	if got := fmt.Sprintf("%s", p.take()); got != "[s2 h1 t3]" {
		t.Errorf("it gets %s", got)
	}
	if got := fmt.Sprintf("%s", p.take()); got != "[  ]" {
		t.Errorf("and then %s", got)
	}
}

// viewer is the address of one of many.
func viewer(n int) netip.Addr { return netip.AddrFrom4([4]byte{100, 64, byte(n >> 8), byte(n)}) }

func TestHandler_tooManyPages_isRefused(t *testing.T) {
	h := newHub(noView, "")
	var pages []*page
	for i := range maxPages {
		p := h.join(fmt.Sprint(i%3), viewer(i/8))
		if p == nil {
			t.Fatalf("no room for page %d", i)
		}
		pages = append(pages, p)
	}
	if h.join("x", viewer(1000)) != nil {
		t.Error("room for one more than there may be")
	}
	h.leave(pages[0])
	if h.join("x", viewer(1000)) == nil {
		t.Error("no room, though one has left")
	}
	for _, p := range pages[1:] {
		h.leave(p)
	}
	if len(h.channels) != 1 || h.pages != 1 || len(h.viewers) != 1 {
		t.Errorf("%d services of %d viewers are kept for %d pages", len(h.channels), len(h.viewers), h.pages)
	}
}

func TestJoin_oneViewer_leavesRoomForOthers(t *testing.T) {
	h := newHub(noView, "")
	for from, limit := range map[string]int{"100.64.0.1": maxPagesPerAddress, "fd7a::1": maxPagesPerAddress, "127.0.0.1": maxLoopbackPages} {
		for i := range 2 * limit {
			if p := h.join(strings.Repeat("x", i*100), netip.MustParseAddr(from)); (p != nil) != (i < limit) {
				t.Errorf("%s: page %d of one viewer: %t", from, i+1, p != nil)
			} else if p != nil && len(p.service) > maxServiceName {
				t.Error("a name of any length is kept")
			}
		}
	}
	if h.join("x", netip.MustParseAddr("100.64.0.2")) == nil {
		t.Error("there is no room for another viewer")
	}
}

// Whatever names pages invent, one view is made and encoded for them.
func TestUpdate_inventedServices_shareOneView(t *testing.T) {
	v := &views{}
	h := newHub(v.look, "")
	var pages []*page
	for i := range 64 {
		pages = append(pages, h.join(fmt.Sprint("unknown", i), viewer(i)))
	}
	if err := h.update(); err != nil {
		t.Fatal(err)
	}
	if v.views != 1 {
		t.Errorf("%d views were made", v.views)
	}
	first := pages[0].take()
	for i, p := range pages[1:] {
		for k, of := range p.take() {
			if len(of) == 0 || &of[0] != &first[k][0] {
				t.Fatalf("page %d has event %d of its own", i+1, k)
			}
		}
	}
}

// Changes that come all the time are shown ten times a second.
func TestRun_changesAllTheTime_arePaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &views{}
		h := newHub(v.look, "")
		h.join("hello", viewer(1))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- h.run(ctx) }()
		for range 10_000 {
			time.Sleep(time.Millisecond)
			h.changed()
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if v.views < 90 || v.views > 115 {
			t.Errorf("in ten seconds it looked %d times", v.views)
		}
	})
}
