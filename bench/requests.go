package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/tailxds/tailxds/internal/load"
)

// requests compares what requests cost an Envoy by our configuration and by a
// bare static one. Requests a second of one that is busy are the reciprocal of
// its CPU a request, and that can be measured beside a client and servers that
// share its cores.
func requests(ctx context.Context, s sizes) (_ figure, err error) {
	servers, closeServers, err := backends(ctx, 4)
	if err != nil {
		return figure{}, err
	}
	defer closeServers()
	ports, err := freePorts(ctx, 4)
	if err != nil {
		return figure{}, err
	}
	control, err := start(ctx, setup{Kind: "tailxds", Services: 1, Servers: servers, Ingress: ports[0]})
	if err != nil {
		return figure{}, err
	}
	defer func() { err = errors.Join(err, control.stop()) }()
	at, err := netip.ParseAddrPort(control.address)
	if err != nil {
		return figure{}, fmt.Errorf("read the control plane's address: %w", err)
	}
	ours, err := ourConfig(at, ports[1])
	if err != nil {
		return figure{}, err
	}
	bare, err := bareConfig(ports[2], ports[3], servers)
	if err != nil {
		return figure{}, err
	}
	configs := [2]string{ours, bare}
	var each [2]series
	for range pairs {
		costs, err := ofPair(ctx, configs, [2]uint16{ports[0], ports[2]}, s.requests/pairs)
		if err != nil {
			return figure{}, err
		}
		for i := range each {
			each[i] = append(each[i], costs[i]...)
		}
	}
	r := each[1].over(each[0])
	return figure{value: r.String(), ok: r.median() >= 0.98, detail: fmt.Sprintf(
		"%.0f against %.0f requests a second of CPU.", 1e6/each[0].median(), 1e6/each[1].median())}, nil
}

// pairs are how many Envoys of each kind are measured: where a process has its
// memory makes it some percent faster or slower, for as long as it lives.
const pairs = 20

// ofPair starts an Envoy of each kind, and measures what requests cost them.
func ofPair(ctx context.Context, configs [2]string, ports [2]uint16, n int) (_ [2]series, err error) {
	dir, err := os.MkdirTemp("", "tailxds-bench-")
	if err != nil {
		return [2]series{}, fmt.Errorf("make a directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var envoys [2]*envoy
	for i, config := range configs {
		e, err := startEnvoy(ctx, filepath.Join(dir, fmt.Sprintf("envoy-%d", i)), config, ports[i])
		if err != nil {
			return [2]series{}, err
		}
		defer e.stop()
		envoys[i] = e
	}
	return costs(ctx, envoys, n)
}

// costs are the microseconds of CPU that a request costs each Envoy, by turns, and
// each as often the first of a turn as the other.
func costs(ctx context.Context, envoys [2]*envoy, n int) ([2]series, error) {
	const rounds, atOnce = 10, 16
	var each [2]series
	for round := range rounds + 1 {
		for turn := range envoys {
			i := (round + turn) % len(envoys)
			before, err := envoys[i].cpu()
			if err != nil {
				return each, err
			}
			result, err := load.Run(ctx, load.Options{URL: envoys[i].url, Requests: n / rounds, Concurrency: atOnce})
			if err == nil && result.Failed() > 0 {
				err = fmt.Errorf("%d requests failed: %v", result.Failed(), result.Failures)
			}
			if err != nil {
				return each, err
			}
			after, err := envoys[i].cpu()
			if err != nil {
				return each, err
			}
			if round > 0 { // connections are made in the first
				each[i] = append(each[i], (after-before).Seconds()*1e6/float64(n/rounds))
			}
		}
	}
	return each, nil
}

// backends serve requests, as cheaply as Go does that.
func backends(ctx context.Context, n int) (ports []uint16, stop func(), err error) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	var all []*http.Server
	stop = func() {
		for _, s := range all {
			_ = s.Close() // nothing is lost
		}
	}
	for range n {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			stop()
			return nil, nil, fmt.Errorf("listen: %w", err)
		}
		s := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
		all = append(all, s)
		go func() { _ = s.Serve(l) }() // until it is closed
		ports = append(ports, portOf(l))
	}
	return ports, stop, nil
}

func portOf(l net.Listener) uint16 { return netip.MustParseAddrPort(l.Addr().String()).Port() }

// freePorts are ports that were free a moment ago.
func freePorts(ctx context.Context, n int) ([]uint16, error) {
	var all []uint16
	for range n {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer func() { _ = l.Close() }() // not before all are found
		all = append(all, portOf(l))
	}
	return all, nil
}
