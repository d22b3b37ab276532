package main

import (
	"context"
	"errors"
	"fmt"
)

// perStream compares what a stream costs in memory.
func perStream(ctx context.Context, s sizes) (_ figure, err error) {
	one := setup{Kind: "tailxds", Services: 1, Endpoints: 100, Clients: 1}
	ours, err := begin(ctx, one)
	if err != nil {
		return figure{}, err
	}
	defer func() { err = errors.Join(err, ours.end()) }()
	theirs, err := beginBare(ctx, ours)
	if err != nil {
		return figure{}, err
	}
	defer func() { err = errors.Join(err, theirs.end()) }()
	var each [2]float64
	for i, u := range []*under{ours, theirs} {
		before, err := u.usage()
		if err != nil {
			return figure{}, err
		}
		more, err := connect(ctx, u.address, s.clients, "more", serviceNames(1))
		if err != nil {
			return figure{}, err
		}
		defer more.close()
		after, err := u.usage()
		if err != nil {
			return figure{}, err
		}
		each[i] = (float64(after.Memory) - float64(before.Memory)) / float64(s.clients)
	}
	return ratio(series{each[0] / each[1]}, 1.5, "%s against %s of heap and stacks.", inBytes(each[0]), inBytes(each[1])), nil
}

// reconnects compares a control plane's memory before and after its clients
// went and came again many times.
func reconnects(ctx context.Context, s sizes) (_ figure, err error) {
	const atOnce = 50
	ours, err := begin(ctx, setup{Kind: "tailxds", Services: 1, Endpoints: 100, Clients: 10})
	if err != nil {
		return figure{}, err
	}
	defer func() { err = errors.Join(err, ours.end()) }()
	alone, err := ours.usage()
	if err != nil {
		return figure{}, err
	}
	// settled is what is used once all that went is noticed to be gone.
	settled := func() (answer, error) {
		for ctx.Err() == nil {
			used, err := ours.usage()
			if err != nil || used.Goroutines <= alone.Goroutines {
				return used, err
			}
		}
		return answer{}, context.Cause(ctx)
	}
	again := func(n int) error {
		for i := 0; i < n; i += atOnce {
			some, err := connect(ctx, ours.address, atOnce, fmt.Sprintf("again%d-", i), serviceNames(1))
			if err != nil {
				return err
			}
			some.close()
		}
		return ours.push(ctx) // what it noticed of them, it has noticed
	}
	if err := again(atOnce * 4); err != nil {
		return figure{}, err
	}
	before, err := settled()
	if err != nil {
		return figure{}, err
	}
	if err := again(s.reconnects); err != nil {
		return figure{}, err
	}
	after, err := settled()
	if err != nil {
		return figure{}, err
	}
	return near(float64(after.Memory)/float64(before.Memory), 0.05, "%s against %s.", inBytes(float64(after.Memory)), inBytes(float64(before.Memory))), nil
}
