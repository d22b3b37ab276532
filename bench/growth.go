package main

import (
	"context"
	"errors"
	"fmt"
)

// grown measures CPU and bytes of a change with one service, and with many, of
// which one is changed. The clients follow all of them, as Envoys do.
func grown(ctx context.Context, s sizes, rounds int) (cpu, sent [2]series, err error) {
	const endpoints, each = 100, 5
	var worlds [2]*under
	for i, services := range []int{1, s.services} {
		u, err := begin(ctx, setup{Kind: "tailxds", Services: services, Endpoints: endpoints, Clients: s.clients})
		if err != nil {
			return cpu, sent, err
		}
		defer func() { err = errors.Join(err, u.end()) }()
		worlds[i] = u
	}
	for range rounds {
		for i, u := range worlds {
			before, err := u.tell(command{})
			if err != nil {
				return cpu, sent, err
			}
			bytes := u.bytes.Load()
			for range each {
				if err := u.push(ctx); err != nil {
					return cpu, sent, err
				}
			}
			after, err := u.tell(command{})
			if err != nil {
				return cpu, sent, err
			}
			cpu[i] = append(cpu[i], milliseconds(after.CPU-before.CPU)/each)
			sent[i] = append(sent[i], float64(u.bytes.Load()-bytes)/each)
		}
	}
	return cpu, sent, nil
}

func growthCPU(ctx context.Context, s sizes) (figure, error) {
	cpu, _, err := grown(ctx, s, 2*s.rounds)
	return ratio(cpu[1].over(cpu[0]), 1.2, "%s against %s of CPU a change, with %d clients that follow all services.", ms(cpu[1]), ms(cpu[0]), s.clients), err
}

func growthBytes(ctx context.Context, s sizes) (figure, error) {
	_, sent, err := grown(ctx, s, 1)
	return ratio(sent[1].over(sent[0]), 1.2, "%s against %s a change, to %d clients.", inBytes(sent[1].median()), inBytes(sent[0].median()), s.clients), err
}

// others counts what is sent to clients of a service that is not changed.
func others(ctx context.Context, s sizes) (_ figure, err error) {
	const changes = 30
	ours, err := begin(ctx, setup{Kind: "tailxds", Services: 10, Endpoints: 100, Clients: 10})
	if err != nil {
		return figure{}, err
	}
	defer func() { err = errors.Join(err, ours.end()) }()
	theirs, err := connect(ctx, ours.address, s.clients/10, "other", serviceNames(10)[1:])
	if err != nil {
		return figure{}, err
	}
	defer theirs.close()
	before := theirs.bytes.Load()
	for range changes {
		if err := ours.push(ctx); err != nil {
			return figure{}, err
		}
	}
	n := theirs.bytes.Load() - before
	return figure{fmt.Sprint(n), n == 0, fmt.Sprintf("%d clients of nine services, while a tenth was changed %d times.", len(theirs.all), changes)}, nil
}
