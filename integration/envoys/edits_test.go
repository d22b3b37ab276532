package envoys_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/tailxds/tailxds/integration/harness"
)

// What is open while the policy file is edited: a WebSocket, an answer that streams, and
// a connection of a tcp service.
type openStreams struct {
	t         *testing.T
	socket    *harness.Line
	direct    *harness.Line
	answer    *bufio.Reader
	next      chan string
	keepAlive *http.Client
}

func openAll(t *testing.T, from *harness.Host, entry *harness.Envoy, next chan string) *openStreams {
	t.Helper()
	o := &openStreams{t: t, next: next, keepAlive: from.Client()}
	var err error
	if o.socket, err = from.Upgrade(t.Context(), net.JoinHostPort(entry.V4.String(), "10000"), "server"); err != nil {
		t.Fatal(err)
	}
	if o.direct, err = from.Connect(t.Context(), net.JoinHostPort(entry.V4.String(), "5432")); err != nil {
		t.Fatal(err)
	}
	request, err := harness.Get(entry.URL(10000)+"stream", "")(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	streaming := &http.Client{Transport: &http.Transport{DialContext: from.Dial}} // without a bound
	answer, err := streaming.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = answer.Body.Close(); _ = o.socket.Close(); _ = o.direct.Close() })
	o.answer = bufio.NewReader(answer.Body)
	o.live("at the start")
	return o
}

// live fails the test unless all of them carry bytes.
func (o *openStreams) live(when string) {
	o.t.Helper()
	for name, line := range map[string]*harness.Line{"WebSocket": o.socket, "connection of the tcp service": o.direct} {
		if err := line.RoundTrip(when); err != nil {
			o.t.Fatalf("%s, the %s: %v", when, name, err)
		}
	}
	o.next <- when
	if got, err := o.answer.ReadString('\n'); err != nil || got != when+"\n" {
		o.t.Fatalf("%s, the answer that streams: %q, %v", when, got, err)
	}
}

// drained waits until Envoy has closed what a change of a listener has it close.
func drained(r *harness.Rig, entry *harness.Envoy) {
	r.Await("the end of every drain", func() error {
		stats, err := entry.Stats()
		if err != nil {
			return err
		}
		if n := stats["listener_manager.total_filter_chains_draining"] + stats["listener_manager.total_listeners_draining"]; n > 0 {
			return fmt.Errorf("%d drain", n)
		}
		return nil
	})
}

// streamer is a server whose paths /socket and /stream last. What the test sends is
// the next line of the stream.
func streamer(r *harness.Rig, name string) (*harness.Server, chan string) {
	next := make(chan string)
	s := r.Server(name)
	s.Handle(func(w http.ResponseWriter, request *http.Request) {
		switch request.URL.Path {
		case "/socket":
			harness.Upgraded(w, request)
		case "/stream":
			control := http.NewResponseController(w)
			_ = control.Flush()
			for {
				select {
				case line := <-next:
					_, _ = fmt.Fprintln(w, line)
					_ = control.Flush()
				case <-request.Context().Done():
					return
				}
			}
		default:
			s.Hello(w)
		}
	})
	return s, next
}

// An edit of who is let in, or of what is logged, acts on new requests and connections,
// and leaves alone what is open, but for those that it names. An Envoy that drains
// for a second shows what it closes.
func TestEdit_ofAccessLogAndAllow_keepsWhatIsOpen(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, next := streamer(r, "a")
	db := r.Host("db")
	db.Echo(5433)
	laptop := r.Host("laptop")
	outside := r.HostAt("outside", netip.MustParseAddr("203.0.113.5"), netip.MustParseAddr("2001:db8::5"))
	stranger := r.HostAt("stranger", netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8:1::7"))
	const services = "\nservices: {db: {protocol: tcp, listen: 5432}}\ndefaults: {timeout: 0s}\n"
	control := r.ControlPlane("ingress: {access_log: none}"+services, a.Device("tag:weight-1"), db.Device("tag:service-db", "tag:port-5433"))
	entry := control.EnvoyWith("entry", "--drain-time-s", "1")
	entry.AwaitHealthy("server", 1)
	entry.AwaitHealthy("db", 1)
	open := openAll(t, laptop, entry, next)
	stop := refuses(t, stranger, entry)

	// What is logged: also of requests on a connection that was open before.
	if status, _, err := laptop.Once(harness.Get(entry.URL(10000)+"before", "")); err != nil || status != http.StatusOK {
		t.Fatalf("a request: %d, %v", status, err)
	}
	modified := entry.Stat("listener_manager.listener_modified") + entry.Stat("listener_manager.listener_in_place_updated")
	control.SetPolicy("ingress: {access_log: all}" + services)
	asked := 0
	r.Await("requests are logged", func() error {
		asked++
		path := fmt.Sprintf("after-%d", asked)
		request, err := harness.Get(entry.URL(10000)+path, "")(t.Context())
		if err != nil {
			return err
		}
		answer, err := open.keepAlive.Do(request)
		if err != nil {
			return err
		}
		if err := answer.Body.Close(); err != nil {
			return err
		}
		if len(logged(entry, "/"+path)) == 0 {
			return fmt.Errorf("no line of %s", path)
		}
		return nil
	})
	if lines := logged(entry, "/before"); len(lines) > 0 {
		t.Errorf("without a log there is one: %v", lines)
	}
	drained(r, entry)
	open.live("after an edit of access_log")
	if got := entry.Stat("listener_manager.listener_modified") + entry.Stat("listener_manager.listener_in_place_updated"); got != modified {
		t.Errorf("an edit of access_log changes listeners: %d, was %d", got, modified)
	}

	// Who is let in: one more, and no longer.
	control.SetPolicy("ingress: {access_log: all, allow: [tailnet, loopback, 203.0.113.0/24]}" + services)
	r.Await("the network is let in", func() error { return served(outside, entry.URL(10000)) })
	drained(r, entry)
	open.live("after a network was added")
	theirs, err := outside.Upgrade(t.Context(), net.JoinHostPort(entry.V4.String(), "10000"), "server")
	if err != nil {
		t.Fatal(err)
	}
	control.SetPolicy("ingress: {access_log: all, allow: [tailnet]}" + services)
	r.Await("the network is refused", func() error {
		return errors.Join(closed(t, outside, entry.URL(10000)), closed(t, outside, entry.URL(5432)), closed(t, entry.Host, "http://127.0.0.1:10000/"))
	})
	if err := theirs.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := theirs.Read(make([]byte, 1)); n > 0 || errors.Is(err, net.ErrClosed) || isTimeout(err) {
		t.Errorf("what was open from a network that is refused stays open: %d bytes, %v", n, err)
	}
	drained(r, entry)
	open.live("after networks were taken away")
	stop()
	if rejected := control.Rejected(); rejected != "" {
		t.Errorf("Envoy rejected: %s", rejected)
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// refuses tries all the time to be let in from a host that never is, until it is
// stopped, and fails the test if it once was.
func refuses(t *testing.T, from *harness.Host, entry *harness.Envoy) (stop func()) {
	t.Helper()
	over, done := make(chan struct{}), make(chan struct{})
	tried := 0
	go func() {
		defer close(done)
		for {
			for _, url := range []string{entry.URL(10000), entry.URL6(10000), entry.URL(5432)} {
				if err := closed(t, from, url); err != nil {
					t.Errorf("from %s to %s: %v", from.Name, url, err)
					return
				}
				tried++
			}
			select {
			case <-over:
				return
			default:
			}
		}
	}()
	return func() {
		close(over)
		<-done
		t.Logf("%d connections from %s were refused", tried, from.Name)
	}
}
