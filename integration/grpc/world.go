package grpcclients

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
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
	*harness.Rig
	control  *harness.ControlPlane
	devices  []harness.Device
	servers  map[string]*grpc.Server
	clients  []*Client
	lastHost byte
}

func newWorld(t *testing.T, policy string) *world {
	t.Helper()
	programs, err := harness.BuildControlPlane(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Rig: harness.Here(t, programs), servers: make(map[string]*grpc.Server)}
	w.control = w.StoppedControlPlane(policy)
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
	w.T().Helper()
	w.lastHost++
	address := fmt.Sprintf("127.0.1.%d", w.lastHost)
	l, err := (&net.ListenConfig{}).Listen(w.T().Context(), "tcp", address+":0")
	if err != nil {
		w.T().Fatal(err)
	}
	server := grpc.NewServer(grpc.ForceServerCodec(bytesCodec{}), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		var request []byte
		answer := []byte(name)
		return errors.Join(stream.RecvMsg(&request), stream.SendMsg(&answer))
	}))
	go func() { _ = server.Serve(l) }() // until it is stopped
	w.T().Cleanup(server.Stop)
	w.servers[name] = server
	w.list(harness.Device{ID: name, Name: name, Addresses: []string{address}, Online: true, Tags: append(tags, fmt.Sprintf("tag:port-%d", l.Addr().(*net.TCPAddr).Port))}) //nolint:forcetypeassert // it is TCP's
}

// list lists a device, in the place of one of the same name.
func (w *world) list(d harness.Device) {
	w.T().Helper()
	w.devices = slices.DeleteFunc(w.devices, func(old harness.Device) bool { return old.ID == d.ID })
	w.devices = append(w.devices, d)
	w.control.SetDevices(w.devices...)
}

// unlist removes a device from the list, and returns it.
func (w *world) unlist(name string) (removed harness.Device) {
	w.T().Helper()
	i := slices.IndexFunc(w.devices, func(d harness.Device) bool { return d.ID == name })
	removed = w.devices[i]
	w.devices = slices.Delete(slices.Clone(w.devices), i, i+1)
	w.control.SetDevices(w.devices...)
	return removed
}

// tag gives a device another tag in the place of one that begins alike.
func (w *world) tag(name, prefix, tag string) {
	w.T().Helper()
	i := slices.IndexFunc(w.devices, func(d harness.Device) bool { return d.ID == name })
	d := w.devices[i]
	d.Tags = append(slices.DeleteFunc(slices.Clone(d.Tags), func(old string) bool { return strings.HasPrefix(old, prefix) }), tag)
	w.list(d)
}

// connect starts a client a language, in a region. What this machine lacks is skipped
// by name.
func (w *world) connect(region string, languages ...string) {
	w.T().Helper()
	bootstrap, all := filepath.Join(w.Dir(), "bootstrap.json"), w.T()
	text, err := json.Marshal(map[string]any{
		"xds_servers": []any{map[string]any{"server_uri": w.control.XDS, "channel_creds": []any{map[string]any{"type": "insecure"}}, "server_features": []string{"xds_v3"}}},
		"node":        map[string]any{"id": "client", "locality": map[string]any{"region": region}},
	})
	if err == nil {
		err = os.WriteFile(bootstrap, text, 0o600)
	}
	if err != nil {
		all.Fatal(err)
	}
	for _, language := range languages {
		w.Step("client "+language, func() {
			c, err := start(context.WithoutCancel(all.Context()), language, bootstrap, w.Dir())
			switch {
			case errors.Is(err, errMissing):
				w.T().Skipf("no gRPC client for %s: %v", language, err)
			case err != nil:
				w.T().Fatal(err)
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
		w.T().Fatal("no client is here")
	}
}

// each does the same with all clients at once.
func (w *world) each(f func(*Client) error) {
	w.T().Helper()
	w.whileEach(func() {}, f)
}

// whileEach does the same with all clients at once, and something else meanwhile.
func (w *world) whileEach(meanwhile func(), f func(*Client) error) {
	w.T().Helper()
	errs := make([]error, len(w.clients))
	var wait sync.WaitGroup
	for i, c := range w.clients {
		wait.Go(func() { errs[i] = f(c) })
	}
	defer func() {
		wait.Wait()
		for i, err := range errs {
			if err != nil {
				w.T().Errorf("%s: %v", w.clients[i].Language, err)
			}
		}
	}()
	meanwhile()
}

// follow makes a change while all clients call, and has them call on until each has
// the shares. No more than so many calls of a client may fail from before the change on.
func (w *world) follow(want shares.Shares, mostFailed int, change func()) {
	w.T().Helper()
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
