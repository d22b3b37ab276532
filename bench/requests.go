package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// proxies are Envoys with three configurations, measured once for all rows that
// are of them.
type proxies struct {
	done bool
	costs
}

// costs are the microseconds of CPU a request, by configuration: one figure for
// each round, of all Envoys in turn.
type costs [configurations]series

// The configurations: what tailxds prints and serves, the least that hands
// requests on, and by hand what tailxds's does with a request.
const (
	byUs = iota
	byHandBare
	byHandSame
	configurations
)

const (
	// The cost of a request is that of many Envoys: where a process has its memory
	// makes it some percent faster or slower for as long as it lives.
	mostGenerations = 12
	// A round is short, so that what disturbs the machine for a while disturbs
	// neighbours.
	perRound = 512
	// Connections to each Envoy. Enough that it never waits for somebody who asks.
	connections = 16
)

// requests compares what requests cost an Envoy by our configuration and by
// another. Requests a second of one that is busy are the reciprocal of its CPU a
// request.
func (p *proxies) requests(other int, target float64) func(context.Context, sizes) (figure, error) {
	return func(ctx context.Context, s sizes) (figure, error) {
		if !p.done {
			all, err := measureProxies(ctx, s.requests)
			if err != nil {
				return figure{}, err
			}
			p.costs, p.done = all, true
		}
		r := p.costs[other].over(p.costs[byUs])
		return figure{value: r.String(), ok: r.median() >= target, detail: fmt.Sprintf(
			"%.0f against %.0f requests a second of CPU.", 1e6/p.costs[byUs].median(), 1e6/p.costs[other].median())}, nil
	}
}

func measureProxies(ctx context.Context, n int) (all costs, err error) {
	envoys, others, err := apart()
	if err != nil {
		return all, err
	}
	before, err := bind(os.Getpid(), others)
	if err != nil {
		return all, err
	}
	defer func() {
		_, failed := bind(os.Getpid(), before)
		err = errors.Join(err, failed)
	}()
	servers, closeServers, err := backends(ctx, 4)
	if err != nil {
		return all, err
	}
	defer closeServers()
	ports, err := freePorts(ctx, 2*configurations)
	if err != nil {
		return all, err
	}
	control, err := start(ctx, setup{Kind: "tailxds", Services: 1, Servers: servers, Ingress: ports[byUs]})
	if err != nil {
		return all, err
	}
	defer func() { err = errors.Join(err, control.stop()) }()
	at, err := netip.ParseAddrPort(control.address)
	if err != nil {
		return all, fmt.Errorf("read the control plane's address: %w", err)
	}
	var configs [configurations]string
	for i := range configs {
		admin := ports[configurations+i]
		if i == byUs {
			configs[i], err = ourConfig(at, admin)
		} else {
			configs[i], err = staticConfig(staticSetup{Port: ports[i], Admin: admin, Servers: servers, Same: i == byHandSame})
		}
		if err != nil {
			return all, err
		}
	}
	generations := max(1, min(mostGenerations, n/(10*perRound)))
	for range generations {
		if err := measureGeneration(ctx, configs, ports[:configurations], envoys, n/generations/perRound, &all); err != nil {
			return all, err
		}
	}
	return all, nil
}

// measureGeneration starts an Envoy of each configuration, and measures what
// requests cost them, by turns, and each as often the first of a round as others.
func measureGeneration(
	ctx context.Context, configs [configurations]string, ports []uint16, cpus unix.CPUSet, rounds int, all *costs,
) (err error) {
	dir, err := os.MkdirTemp("", "tailxds-bench-")
	if err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var (
		envoys [configurations]*envoyProcess
		askers [configurations]callers
	)
	for i, config := range configs {
		if envoys[i], err = startEnvoy(ctx, filepath.Join(dir, fmt.Sprintf("envoy-%d", i)), config, ports[i]); err != nil {
			return err
		}
		defer envoys[i].stop()
		if _, err := bind(envoys[i].cmd.Process.Pid, cpus); err != nil {
			return err
		}
		if askers[i], err = dialCallers(ctx, fmt.Sprintf("127.0.0.1:%d", ports[i]), connections); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, askers[i].Close()) }()
		if err := askers[i].ask(4 * perRound); err != nil { // connections to the servers are made
			return err
		}
	}
	for round := range rounds {
		for turn := range envoys {
			i := (round + turn) % len(envoys)
			cost, err := envoys[i].spends(func() error { return askers[i].ask(perRound) })
			if err != nil {
				return err
			}
			all[i] = append(all[i], cost.Seconds()*1e6/perRound)
		}
	}
	return nil
}

// backends answer requests.
func backends(ctx context.Context, n int) (ports []uint16, stop func(), err error) {
	var all []net.Listener
	stop = func() {
		for _, l := range all {
			_ = l.Close() // nothing is lost
		}
	}
	for range n {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			stop()
			return nil, nil, fmt.Errorf("listen: %w", err)
		}
		all = append(all, l)
		go answerAll(l) // until it is closed
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
