// Command server is the web server that the lab balances. It says who it is,
// and it can be told to be unhealthy.
//
//	server                    serve on :8080
//	server healthcheck [URL]  exit 0 if URL answers 2xx; for container health checks
//
// With CAPACITY, the requests a second that it can carry, in its environment it
// tells in each answer how loaded it is (ORCA).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	defaultAddr = ":8080"
	// A container's health check asks for the front page and not for /healthz:
	// a server that was set unhealthy is out of Envoy's rotation, not broken.
	defaultCheckURL = "http://127.0.0.1:8080/"
	// How long requests in flight may take to end after SIGTERM. Docker and
	// Kubernetes kill the process 10 s and 30 s after it.
	drainTimeout = 8 * time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Getenv, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "server:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, getenv func(string) string, logTo io.Writer) error {
	switch {
	case len(args) == 0:
		return serve(ctx, getenv, logTo)
	case args[0] == "healthcheck" && len(args) == 1:
		return check(ctx, defaultCheckURL)
	case args[0] == "healthcheck" && len(args) == 2:
		return check(ctx, args[1])
	default:
		return errors.New("usage: server [healthcheck [URL]]; ADDR, HOST, REGION and CAPACITY come from the environment")
	}
}

func serve(ctx context.Context, getenv func(string) string, logTo io.Writer) error {
	logger := log.New(logTo, "", log.LstdFlags)
	host, err := hostname(getenv)
	if err != nil {
		return err
	}
	addr := defaultAddr
	if a := getenv("ADDR"); a != "" {
		addr = a
	}
	handler := newHandler(host, getenv("REGION"), logger)
	capacity, err := parseCapacity(getenv("CAPACITY"))
	if err != nil {
		return err
	}
	if capacity > 0 {
		handler = reportLoad(capacity, time.Now, handler)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listening on %s (stop what holds the port, or set ADDR to another): %w", addr, err)
	}
	srv := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          logger,
	}
	logger.Printf("Server starting on %s, host = %s", addr, host)

	served := make(chan error, 1)
	go func() { served <- srv.Serve(listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serving on %s: %w", addr, err)
	case <-ctx.Done():
		return shutdown(ctx, srv, logger)
	}
}

// shutdown lets requests in flight end. That the context has ended is why it is
// called, and does not cut them off.
func shutdown(ctx context.Context, srv *http.Server, logger *log.Logger) error {
	logger.Print("Server stopping")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		return fmt.Errorf("requests were still in flight %v after the signal to stop: %w", drainTimeout, err)
	}
	return nil
}

func hostname(getenv func(string) string) (string, error) {
	if h := getenv("HOST"); h != "" {
		return h, nil
	}
	h, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("finding this machine's name (set HOST to name it): %w", err)
	}
	return h, nil
}

func check(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("health check: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("health check: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("health check: %s answered %s", url, resp.Status)
	}
	return nil
}

// maxWait is well within the server's time to write an answer.
const maxWait = 8 * time.Second

// newHandler serves what the balancer and people see. Only /healthz tells
// health: the front page goes on answering, so that whoever still gets there
// is served.
func newHandler(host, region string, logger *log.Logger) http.Handler {
	if region == "" {
		region = "unknown"
	}
	var unhealthy atomic.Bool
	set := func(to bool, word string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			unhealthy.Store(to)
			logger.Print("Set to " + word)
			fmt.Fprintf(w, "[%s] Set to %s\n", host, word)
		}
	}

	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		if err := wait(r); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprintf(w, "Hello from %s! in %s\n", host, region)
	})
	mux.HandleFunc("GET /unhealthy", set(true, "unhealthy"))
	mux.HandleFunc("GET /healthy", set(false, "healthy"))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if unhealthy.Load() {
			http.Error(w, "unhealthy", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "healthy")
	})
	return mux
}

// wait is for those who want to see what becomes of a slow request: ?wait=3s.
func wait(r *http.Request) error {
	text := r.URL.Query().Get("wait")
	if text == "" {
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > maxWait {
		return fmt.Errorf("wait=%s must be a duration from 0s to %v, such as 3s", text, maxWait)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
	}
	return nil
}

// meter measures requests a second, over the last second.
type meter struct {
	mu        sync.Mutex
	began     time.Time // of the second that runs
	last, now float64   // requests in the second before, and in this one
}

// count counts a request and returns the rate. The second before counts for as
// much of it as is not over a second ago.
func (m *meter) count(at time.Time) float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch age := at.Sub(m.began); {
	case age >= 2*time.Second:
		m.began, m.last, m.now = at, 0, 0
	case age >= time.Second:
		m.began, m.last, m.now = m.began.Add(time.Second), m.now, 0
	}
	m.now++
	return m.last*(1-at.Sub(m.began).Seconds()) + m.now
}

// reportLoad adds to each answer how loaded the server is (ORCA), as Envoy's
// client_side_weighted_round_robin and gRPC's weighted_round_robin take it:
// https://github.com/grpc/proposal/blob/master/A51-custom-backend-metrics.md
// The load is the measured rate of requests over the capacity.
func reportLoad(capacity float64, now func() time.Time, h http.Handler) http.Handler {
	m := new(meter)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rate := m.count(now())
		w.Header().Set("endpoint-load-metrics", fmt.Sprintf("TEXT application_utilization=%g,rps_fractional=%g", rate/capacity, rate))
		h.ServeHTTP(w, r)
	})
}

// parseCapacity reads CAPACITY; 0 is that nothing is reported.
func parseCapacity(text string) (float64, error) {
	if text == "" {
		return 0, nil
	}
	c, err := strconv.ParseFloat(text, 64)
	if err != nil || !(c > 0) || math.IsInf(c, 0) {
		return 0, fmt.Errorf("CAPACITY=%q must be how many requests a second this server can carry, such as 100", text)
	}
	return c, nil
}
