package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tailxds/tailxds/integration/shares"
)

// ServerPort is where servers listen unless their tags set another port.
const ServerPort = 8080

// Server is a host with a web server that answers with its name.
type Server struct {
	*Host
	// Served counts requests that are no health checks.
	Served atomic.Int64
	// Checked counts health checks over HTTP.
	Checked          atomic.Int64
	handler          atomic.Pointer[http.Handler]
	server           *http.Server
	unhealthy        atomic.Bool
	host             atomic.Pointer[string]
	healthCheckDelay atomic.Int64 // how long a health check takes
}

// SetHealthCheckDelay has health checks take a while from now on.
func (s *Server) SetHealthCheckDelay(d time.Duration) { s.healthCheckDelay.Store(int64(d)) }

// AllowHost has health checks over HTTP with another header Host be answered 400
// from now on, as Django and Rails do.
func (s *Server) AllowHost(host string) { s.host.Store(&host) }

// SetUnhealthy makes the server fail its health checks from now on, or pass them.
func (s *Server) SetUnhealthy(sick bool) { s.unhealthy.Store(sick) }

// Server starts a server that speaks HTTP/1.
func (r *Rig) Server(name string) *Server {
	r.t.Helper()
	return r.ServerSpeaking(name, func(p *http.Protocols) { p.SetHTTP1(true) })
}

// ServerSpeaking starts a server that speaks only what is set.
func (r *Rig) ServerSpeaking(name string, speak func(*http.Protocols)) *Server {
	r.t.Helper()
	return r.serve(r.Host(name), speak, 0)
}

// ServerClosingIdle starts a server that speaks HTTP/1, and closes connections that are
// idle for so long.
func (r *Rig) ServerClosingIdle(name string, after time.Duration) *Server {
	r.t.Helper()
	return r.serve(r.Host(name), func(p *http.Protocols) { p.SetHTTP1(true) }, after)
}

// serve starts a server on a host.
func (r *Rig) serve(h *Host, speak func(*http.Protocols), idle time.Duration) *Server {
	r.t.Helper()
	s := &Server{Host: h}
	s.Handle(func(w http.ResponseWriter, _ *http.Request) { s.Hello(w) })
	l, err := s.Listen(fmt.Sprintf(":%d", ServerPort))
	if err != nil {
		r.t.Fatal(err)
	}
	s.server = &http.Server{Handler: s, Protocols: new(http.Protocols), ReadHeaderTimeout: maxWait}
	speak(s.server.Protocols)
	s.server.IdleTimeout = idle
	go func() { _ = s.server.Serve(l) }() // until it is closed
	r.t.Cleanup(s.Close)
	return s
}

// Close ends the server. Its host lives on, and refuses connections.
func (s *Server) Close() { _ = s.server.Close() }

// LabServer is a host with the lab's own server, a program that can be killed.
type LabServer struct {
	*Host
	process *process
}

// LabServer starts the lab's own server on a host of its own, with what is to
// stand in its environment.
func (r *Rig) LabServer(name string, env ...string) *LabServer {
	r.t.Helper()
	h := r.Host(name)
	p, err := h.start(false, name, "env", append(append([]string{"HOST=" + name}, env...), r.programs.Server)...)
	if err != nil {
		r.t.Fatal(err)
	}
	return &LabServer{h, p}
}

// Kill ends the server with SIGKILL. Its host lives on, and refuses connections.
func (s *LabServer) Kill() {
	s.rig.t.Helper()
	if err := s.process.stop(); err != nil {
		s.rig.t.Fatal(err)
	}
}

// Handle has other answers given from now on, to all but health checks.
func (s *Server) Handle(f http.HandlerFunc) {
	var h http.Handler = f
	s.handler.Store(&h)
}

// Hello answers as the lab's servers do.
func (s *Server) Hello(w io.Writer) { fmt.Fprintf(w, "Hello from %s! in nowhere", s.Name) }

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/healthz" {
		s.Checked.Add(1)
		select {
		case <-time.After(time.Duration(s.healthCheckDelay.Load())):
		case <-r.Context().Done():
		}
		switch known := s.host.Load(); {
		case s.unhealthy.Load():
			w.WriteHeader(http.StatusServiceUnavailable)
		case known != nil && *known != r.Host:
			w.WriteHeader(http.StatusBadRequest)
		}
		return
	}
	s.Served.Add(1)
	(*s.handler.Load()).ServeHTTP(w, r)
}

// Client sends requests from the host.
func (h *Host) Client() *http.Client {
	return &http.Client{
		Transport: &http.Transport{DialContext: h.Dial, TLSClientConfig: h.TLS, MaxIdleConnsPerHost: 100},
		Timeout:   maxWait,
	}
}

// Request makes a request anew each time.
type Request func(context.Context) (*http.Request, error)

// Get asks for a page. The header Host is that of the URL unless one is given.
func Get(url, host string) Request {
	return func(ctx context.Context) (*http.Request, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err == nil && host != "" {
			r.Host = host
		}
		return r, err
	}
}

// Post is one that is not safe to repeat.
func Post(url, host string) Request {
	return func(ctx context.Context) (*http.Request, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader("once"))
		if err == nil && host != "" {
			r.Host = host
		}
		return r, err
	}
}

// fetch is the body of a page, or an error if its status is none of success.
func (h *Host) fetch(url string) (string, error) {
	status, body, err := h.Once(Get(url, ""))
	if err == nil && status >= 300 {
		err = fmt.Errorf("%s: status %d: %s", url, status, body)
	}
	return body, err
}

// Once sends one request on a connection of its own.
func (h *Host) Once(ask Request) (status int, body string, err error) {
	client := h.Client()
	defer client.CloseIdleConnections()
	return send(h.rig.ctx, client, ask)
}

func send(ctx context.Context, client *http.Client, ask Request) (int, string, error) {
	request, err := ask(ctx)
	if err != nil {
		return 0, "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, string(body), err
}

// Load is requests that flow until they are stopped.
type Load struct {
	cancel context.CancelFunc
	client *http.Client
	done   sync.WaitGroup
	left   atomic.Int64

	mu    sync.Mutex
	tally shares.Tally
}

// Flow sends requests from the host without a pause, so many at a time.
func (h *Host) Flow(workers int, ask Request) *Load {
	return h.load(1<<62, workers, ask)
}

// Ask sends n requests and waits for their answers.
func (h *Host) Ask(n int, ask Request) shares.Tally {
	l := h.load(n, 8, ask)
	l.done.Wait()
	return l.Stop()
}

// CheckShares sends enough requests to tell the shares of servers from wrong ones, such as
// [shares.OneStepWrong]. The error says how the answers differ.
func (h *Host) CheckShares(ask Request, want shares.Shares, wrong ...shares.Shares) error {
	return shares.Check(h.Ask(shares.Enough(want, wrong...), ask).By(shares.Host), want)
}

func (h *Host) load(n, workers int, ask Request) *Load {
	ctx, cancel := context.WithCancel(h.rig.ctx)
	client := h.Client()
	l := &Load{cancel: cancel, client: client, tally: shares.Tally{Counts: map[string]int{}}}
	l.left.Store(int64(n))
	for range workers {
		l.done.Go(func() {
			for ctx.Err() == nil && l.left.Add(-1) >= 0 {
				// What is under way when the load is stopped may end.
				status, body, err := send(context.WithoutCancel(ctx), client, ask)
				l.count(status, body, err)
			}
		})
	}
	return l
}

func (l *Load) count(status int, body string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil && status == http.StatusOK:
		l.tally.Counts[strings.TrimSpace(body)]++
		return
	case err == nil:
		err = fmt.Errorf("status %d: %s", status, body)
	}
	l.tally.Failed++
	if l.tally.Failed <= 5 {
		l.tally.Reasons += fmt.Sprintf("%s %v\n", time.Now().Format(time.TimeOnly), err)
	}
}

// Stop ends the load and returns what was counted.
func (l *Load) Stop() shares.Tally {
	l.cancel()
	l.done.Wait()
	l.client.CloseIdleConnections()
	return l.tally
}

// Answered is how many requests were answered well so far.
func (l *Load) Answered() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tally.Answered()
}

// AwaitMore waits for so many further answers.
func (l *Load) AwaitMore(r *Rig, n int) {
	r.t.Helper()
	want := l.Answered() + n
	r.Await(fmt.Sprintf("%d more answers", n), func() error {
		if l.Answered() < want {
			return errors.New("not yet")
		}
		return nil
	})
}
