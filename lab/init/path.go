package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"
)

// impairment is what befalls the packets that arrive from some addresses.
type impairment struct {
	from  []netip.Addr
	delay time.Duration // 0 means that they are lost
}

// parseImpairment reads the arguments of `lab-init path`.
func parseImpairment(args []string) (impairment, error) {
	var h impairment
	switch {
	case len(args) > 1 && args[0] == "cut":
		args = args[1:]
	case len(args) > 2 && args[0] == "slow":
		delay, err := time.ParseDuration(args[1])
		if err != nil || delay <= 0 || delay > 10*time.Second {
			return impairment{}, fmt.Errorf("%q is not a delay up to 10s; write it like 100ms", args[1])
		}
		h.delay, args = delay, args[2:]
	default:
		return impairment{}, errors.New("usage: lab-init path cut ADDRESS… | path slow DELAY ADDRESS…")
	}
	for _, arg := range args {
		address, err := netip.ParseAddr(arg)
		if err != nil {
			return impairment{}, fmt.Errorf("%q is not an IP address: %w", arg, err)
		}
		h.from = append(h.from, address.Unmap())
	}
	return h, nil
}

// impair loses or delays what arrives in this network namespace from some
// addresses, says so, and undoes it when ctx ends.
func impair(ctx context.Context, h impairment, out io.Writer) (err error) {
	undo, err := h.install(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, undo()) }()
	if _, err := fmt.Fprintln(out, readyLine); err != nil {
		return fmt.Errorf("saying that the path is hindered: %w", err)
	}
	<-ctx.Done()
	return nil
}

// readyLine is the line that scripts/lab waits for.
const readyLine = "in force"
