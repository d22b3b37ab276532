package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"
)

// hindrance is what befalls the packets that arrive from some addresses.
type hindrance struct {
	from  []netip.Addr
	delay time.Duration // 0 means that they are lost
}

// parseHindrance reads the arguments of `lab-init path`.
func parseHindrance(args []string) (hindrance, error) {
	var h hindrance
	switch {
	case len(args) > 1 && args[0] == "cut":
		args = args[1:]
	case len(args) > 2 && args[0] == "slow":
		delay, err := time.ParseDuration(args[1])
		if err != nil || delay <= 0 || delay > 10*time.Second {
			return hindrance{}, fmt.Errorf("%q is not a delay up to 10s; write it like 100ms", args[1])
		}
		h.delay, args = delay, args[2:]
	default:
		return hindrance{}, errors.New("usage: lab-init path cut ADDRESS… | path slow DELAY ADDRESS…")
	}
	for _, arg := range args {
		address, err := netip.ParseAddr(arg)
		if err != nil {
			return hindrance{}, fmt.Errorf("%q is not an IP address: %w", arg, err)
		}
		h.from = append(h.from, address.Unmap())
	}
	return h, nil
}

// hinder loses or delays what arrives in this network namespace from some
// addresses, says so, and undoes it when ctx ends.
func hinder(ctx context.Context, h hindrance, out io.Writer) (err error) {
	undo, err := h.install(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, undo()) }()
	if _, err := fmt.Fprintln(out, inForce); err != nil {
		return fmt.Errorf("saying that the path is hindered: %w", err)
	}
	<-ctx.Done()
	return nil
}

// inForce is the line that scripts/lab waits for.
const inForce = "in force"
