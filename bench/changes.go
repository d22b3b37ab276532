package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// under is a control plane with its clients.
type under struct {
	*child
	*clients
}

// begin starts a control plane, and connects clients to it.
func begin(ctx context.Context, s setup) (*under, error) {
	c, err := start(ctx, s)
	if err != nil {
		return nil, err
	}
	all, err := connect(ctx, c.address, s.Clients, "n", serviceNames(s.Services))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", s.Kind, err), c.stop())
	}
	return &under{c, all}, nil
}

func (u *under) end() error {
	u.close()
	return u.stop()
}

// beginBare starts a bare server that sends what ours sent.
func beginBare(ctx context.Context, ours *under) (*under, error) {
	s := ours.setup
	s.Kind, s.Payload = "bare", map[string][]byte{}
	for _, typ := range []string{resource.ClusterType, resource.EndpointType, resource.ListenerType, resource.RouteType} {
		s.Payload[typ] = ours.lastOf(typ)
	}
	if err := ours.push(ctx); err != nil {
		return nil, err
	}
	s.Change = ours.lastOf(resource.EndpointType)
	return begin(ctx, s)
}

// push has one change reach all clients.
func (u *under) push(ctx context.Context) error {
	_, err := u.next(ctx, len(u.all), u.change)
	return err
}

// fanout compares how long a change takes to reach all clients. The peers take
// turns, so that what happens on the machine happens to both.
func fanout(ctx context.Context, s sizes, clients, endpoints int, peer string, limit float64) (_ figure, err error) {
	ours, err := begin(ctx, setup{Kind: "tailxds", Services: 1, Endpoints: endpoints, Clients: clients})
	if err != nil {
		return figure{}, err
	}
	defer func() { err = errors.Join(err, ours.end()) }()
	var theirs *under
	if peer == "bare" {
		theirs, err = beginBare(ctx, ours)
	} else {
		theirs, err = begin(ctx, setup{Kind: peer, Services: 1, Endpoints: endpoints, Clients: clients})
	}
	if err != nil {
		return figure{}, err
	}
	defer func() { err = errors.Join(err, theirs.end()) }()

	// With few clients a change is over soon, and a wake-up that is late weighs more:
	// many more are needed for a figure as steady.
	fewer := s.clients / clients
	warm, rounds := 3*fewer, s.rounds*fewer*fewer
	var took, cpu [2]series
	for round := range warm + rounds {
		for i, u := range []*under{ours, theirs} {
			before, err := u.tell(command{})
			if err != nil {
				return figure{}, err
			}
			d, err := u.next(ctx, clients, u.change)
			if err != nil {
				return figure{}, fmt.Errorf("%s: %w", u.setup.Kind, err)
			}
			after, err := u.tell(command{})
			if err != nil {
				return figure{}, err
			}
			if round >= warm {
				took[i], cpu[i] = append(took[i], milliseconds(d)), append(cpu[i], milliseconds(after.CPU-before.CPU))
			}
		}
	}
	return ratio(took[0].over(took[1]), limit, "%s against %s, and %s against %s of CPU, of %s a change and client.",
		ms(took[0]), ms(took[1]), ms(cpu[0]), ms(cpu[1]), inBytes(float64(len(ours.lastOf(resource.EndpointType))))), nil
}

// stalled compares the memory of a control plane some of whose clients read
// nothing, before and after many changes.
func stalled(ctx context.Context, s sizes) (_ figure, err error) {
	const endpoints, before, after = 1_000, 5, 30
	deaf := s.clients / 5
	ours, err := begin(ctx, setup{Kind: "tailxds", Services: 1, Endpoints: endpoints, Clients: s.clients - deaf})
	if err != nil {
		return figure{}, err
	}
	defer func() { err = errors.Join(err, ours.end()) }()
	alone, err := ours.usage()
	if err != nil {
		return figure{}, err
	}
	for i := range deaf {
		one, err := open(ctx, ours.address)
		if err != nil {
			return figure{}, err
		}
		defer func() { one.end(); _ = one.conn.Close() }()
		if err := one.subscribe(fmt.Sprintf("deaf%d", i), serviceNames(1)); err != nil {
			return figure{}, err
		}
	}
	var memory [2]float64
	for i, changes := range []int{before, after} {
		for range changes {
			if err := ours.push(ctx); err != nil {
				return figure{}, err
			}
		}
		used, err := ours.usage()
		if err != nil {
			return figure{}, err
		}
		memory[i] = float64(used.Memory)
	}
	each := (memory[1] - float64(alone.Memory)) / float64(deaf)
	r := memory[1] / memory[0]
	return figure{
		value: fmt.Sprintf("%.3f", r), ok: r <= 1.05,
		detail: fmt.Sprintf("%s and %s in all; a client that does not read costs %s, and an assignment has %s.",
			inBytes(memory[0]), inBytes(memory[1]), inBytes(each), inBytes(float64(len(ours.lastOf(resource.EndpointType))))),
	}, nil
}
