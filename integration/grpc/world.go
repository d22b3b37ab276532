package grpcclients

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/tailxds/tailxds/integration/harness"
	"github.com/tailxds/tailxds/integration/shares"
)

const anyMethod = "/acme.Shop/Get"

// patience bounds how long is waited for what must come.
const patience = time.Minute

// world is a control plane, servers, and a client a language that knows only the
// control plane.
type world struct {
	t        *testing.T
	dir      string
	program  string // tailxds
	devices  []device
	servers  map[string]*grpc.Server
	control  *exec.Cmd
	ended    chan error // what the control plane's process ended with
	xds      string     // where it serves
	admin    string
	clients  []*Client
	starts   int
	lastHost byte
}

// device is an entry of the list of devices.
type device struct {
	ID        string   `json:"id"`
	Name      string   `json:"name"`
	Addresses []string `json:"addresses"`
	Tags      []string `json:"tags"`
	Online    bool     `json:"online"`
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), servers: make(map[string]*grpc.Server)}
	w.program = filepath.Join(w.dir, "tailxds")
	if err := harness.BuildTools(t.Context(), w.dir, "./cmd/tailxds"); err != nil {
		t.Fatal(err)
	}
	return w
}

// bytesCodec sends bytes as they are.
type bytesCodec struct{}

func (bytesCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil } //nolint:forcetypeassert // all messages are
func (bytesCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = slices.Clone(data) //nolint:forcetypeassert // all messages are
	return nil
}
func (bytesCodec) Name() string { return "bytes" }

// serve starts a server of all methods, which answers with its name, and lists it as
// a device. Each has an address of its own, so that none of them is the clients'.
func (w *world) serve(name string, tags ...string) {
	w.t.Helper()
	w.lastHost++
	address := fmt.Sprintf("127.0.1.%d", w.lastHost)
	l, err := (&net.ListenConfig{}).Listen(w.t.Context(), "tcp", address+":0")
	if err != nil {
		w.t.Fatal(err)
	}
	server := grpc.NewServer(grpc.ForceServerCodec(bytesCodec{}), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		var request []byte
		answer := []byte(name)
		return errors.Join(stream.RecvMsg(&request), stream.SendMsg(&answer))
	}))
	go func() { _ = server.Serve(l) }() // until it is stopped
	w.t.Cleanup(server.Stop)
	w.servers[name] = server
	w.list(device{ID: name, Name: name, Addresses: []string{address}, Online: true, Tags: append(tags, fmt.Sprintf("tag:port-%d", l.Addr().(*net.TCPAddr).Port))}) //nolint:forcetypeassert // it is TCP's
}

// list lists a device, in the place of one of the same name.
func (w *world) list(d device) {
	w.t.Helper()
	w.devices = slices.DeleteFunc(w.devices, func(old device) bool { return old.ID == d.ID })
	w.devices = append(w.devices, d)
	w.write("devices.json", w.devices)
}

// unlist removes a device from the list, and returns it.
func (w *world) unlist(name string) (removed device) {
	w.t.Helper()
	i := slices.IndexFunc(w.devices, func(d device) bool { return d.ID == name })
	removed = w.devices[i]
	w.devices = slices.Delete(slices.Clone(w.devices), i, i+1)
	w.write("devices.json", w.devices)
	return removed
}

// tag gives a device another tag in the place of one that begins alike.
func (w *world) tag(name, prefix, tag string) {
	w.t.Helper()
	i := slices.IndexFunc(w.devices, func(d device) bool { return d.ID == name })
	d := w.devices[i]
	d.Tags = append(slices.DeleteFunc(slices.Clone(d.Tags), func(old string) bool { return strings.HasPrefix(old, prefix) }), tag)
	w.list(d)
}

func (w *world) write(name string, v any) {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	text, err := json.Marshal(v)
	if err == nil {
		err = os.WriteFile(path+".new", text, 0o600)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// run starts the control plane, at the same addresses as before, and waits until it serves.
func (w *world) run(policy string) {
	w.t.Helper()
	if w.xds == "" {
		w.xds, w.admin = "127.0.0.1:0", "127.0.0.1:0"
		if err := os.WriteFile(filepath.Join(w.dir, "policy.yaml"), []byte(policy), 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	w.starts++
	log, err := os.Create(filepath.Join(w.dir, fmt.Sprintf("control-plane-%d.log", w.starts)))
	if err != nil {
		w.t.Fatal(err)
	}
	w.control = exec.Command(w.program, "serve", "--provider", "file", "--devices", filepath.Join(w.dir, "devices.json"), //nolint:noctx // it ends with the test, or by kill
		"--config", filepath.Join(w.dir, "policy.yaml"), "--state-dir", filepath.Join(w.dir, "state"), "--listen", w.xds, "--admin", w.admin)
	w.control.Stderr = log
	if err := w.control.Start(); err != nil {
		w.t.Fatal(err)
	}
	ended := make(chan error, 1)
	w.ended = ended
	go func(c *exec.Cmd) { ended <- errors.Join(c.Wait(), log.Close()) }(w.control)
	w.xds = w.logged(log.Name(), `msg="serving xDS" address=(\S+)`)
	w.admin = w.logged(log.Name(), `admin=(\S+)`)
	w.await("the control plane is ready", func() error {
		_, err := w.page("/readyz")
		return err
	})
}

// logged is what a pattern finds in a log, once it is there.
func (w *world) logged(path, pattern string) (found string) {
	w.t.Helper()
	w.await("the log has "+pattern, func() error {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		m := regexp.MustCompile(pattern).FindSubmatch(text)
		if m == nil {
			return fmt.Errorf("the log is %s", text)
		}
		found = string(m[1])
		return nil
	})
	return found
}

// kill ends the control plane without a chance to say so.
func (w *world) kill() {
	w.t.Helper()
	if err := w.control.Process.Kill(); err != nil {
		w.t.Fatal(err)
	}
	if err := <-w.ended; err == nil {
		w.t.Fatal("the control plane had ended by itself")
	}
}

// page is an admin page of the control plane.
func (w *world) page(path string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+w.admin+path, nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s: %s", path, response.Status, body)
	}
	return string(body), nil
}

// tailxds runs a command against the control plane.
func (w *world) tailxds(args ...string) {
	w.t.Helper()
	out, err := exec.CommandContext(w.t.Context(), w.program, append(args, "--admin", w.admin)...).CombinedOutput()
	if err != nil {
		w.t.Fatalf("tailxds %v: %v: %s", args, err, out)
	}
}

// await waits until there is no error.
func (w *world) await(what string, check func() error) {
	w.t.Helper()
	deadline := time.After(patience)
	for again := time.Tick(20 * time.Millisecond); ; <-again {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			w.t.Fatalf("waited for: %s: %v", what, err)
		default:
		}
	}
}

// step runs a part of the test under a name of its own.
func (w *world) step(name string, f func()) {
	w.t.Helper()
	all := w.t
	defer func() { w.t = all }()
	all.Run(name, func(t *testing.T) {
		w.t = t
		f()
	})
}

// connect starts a client a language, in a region. What this machine lacks is skipped
// by name.
func (w *world) connect(region string, languages ...string) {
	w.t.Helper()
	bootstrap, all := filepath.Join(w.dir, "bootstrap.json"), w.t
	w.write("bootstrap.json", map[string]any{
		"xds_servers": []any{map[string]any{"server_uri": w.xds, "channel_creds": []any{map[string]any{"type": "insecure"}}, "server_features": []string{"xds_v3"}}},
		"node":        map[string]any{"id": "client", "locality": map[string]any{"region": region}},
	})
	for _, language := range languages {
		w.step("client "+language, func() {
			c, err := start(context.WithoutCancel(all.Context()), language, bootstrap, w.dir)
			switch {
			case errors.Is(err, errMissing):
				w.t.Skipf("no gRPC client for %s: %v", language, err)
			case err != nil:
				w.t.Fatal(err)
			}
			all.Cleanup(func() {
				if err := c.stop(); err != nil {
					all.Errorf("the client for %s ended with %v: %s", language, err, c.said())
				}
			})
			w.clients = append(w.clients, c)
		})
	}
	if len(w.clients) == 0 {
		w.t.Fatal("no client is here")
	}
}

// each does the same with all clients at once.
func (w *world) each(f func(*Client) error) {
	w.t.Helper()
	w.whileEach(func() {}, f)
}

// whileEach does the same with all clients at once, and something else meanwhile.
func (w *world) whileEach(meanwhile func(), f func(*Client) error) {
	w.t.Helper()
	errs := make([]error, len(w.clients))
	var wait sync.WaitGroup
	for i, c := range w.clients {
		wait.Go(func() { errs[i] = f(c) })
	}
	defer func() {
		wait.Wait()
		for i, err := range errs {
			if err != nil {
				w.t.Errorf("%s: %v", w.clients[i].Language, err)
			}
		}
	}()
	meanwhile()
}

// follow makes a change while all clients call, and has them call on until each has
// the shares. No more than so many calls of a client may fail from before the change on.
func (w *world) follow(want shares.Shares, mostFailed int, change func()) {
	w.t.Helper()
	calling, changed := make(chan struct{}, len(w.clients)), make(chan struct{})
	makeChange := func() {
		defer close(changed)
		for range w.clients {
			<-calling
		}
		change()
	}
	enough := shares.Enough(want, shares.Shares{"a": 1, "b": 1, "c": 1})
	w.whileEach(makeChange, func(c *Client) error {
		failed := make(map[string]int)
		timeout := 60 // a process that just started learns all of the control plane first
		call := func(n int) (Answer, error) {
			a, err := c.Do(Order{Target: "hello", Method: anyMethod, Timeout: timeout, Within: 60, Calls: n})
			timeout = 10
			for reason, n := range a.Errors {
				failed[reason] += n
			}
			return a, err
		}
		_, err := call(50)
		calling <- struct{}{}
		for over := false; !over && err == nil; {
			select {
			case <-changed:
				over = true
			default:
				_, err = call(50)
			}
		}
		wrong := errors.New("no call was made")
		for deadline := time.Now().Add(patience); err == nil && wrong != nil && time.Now().Before(deadline); {
			var a Answer
			a, err = call(enough)
			wrong = shares.Check(shares.Tally{Counts: a.Counts, Failed: a.Failed()}, want)
		}
		if n := (Answer{Errors: failed}).Failed(); n > mostFailed {
			err = errors.Join(err, fmt.Errorf("%d calls failed, at most %d may: %v", n, mostFailed, failed))
		}
		return errors.Join(err, wrong)
	})
}
