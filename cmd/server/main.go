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
	"net"
	"net/http"
	"os"
	"os/signal"
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
