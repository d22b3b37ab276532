// Command bench measures tailxds beside what one would use instead, and writes
// down what it measured. Every comparison is made in one run, by turns.
//
//	go -C bench run . -o ../docs/benchmarks.md
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	peer := flags.String("peer", "", "be a peer, by a setup in this file (bench starts itself so)")
	fast := flags.Bool("quick", false, "small sizes: whether everything runs, and no figure worth a look")
	only := flags.String("only", ".", "rows whose name matches this `EXPRESSION`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *peer != "" {
		spec, err := os.ReadFile(*peer)
		if err != nil {
			return fmt.Errorf("read the setup: %w", err)
		}
		return beChild(ctx, string(spec), os.Stdin, stdout)
	}
	wanted, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	size := full
	if *fast {
		size = quick
	}
	var done []measured
	for _, r := range rows() {
		if !wanted.MatchString(r.name) {
			continue
		}
		fmt.Fprintf(stderr, "%s: ", r.name)
		f, err := r.run(ctx, size)
		if err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		fmt.Fprintf(stderr, "%s, to reach %s. %s\n", f.value, r.target, f.detail)
		done = append(done, measured{r, f})
	}
	return table(stdout, done)
}
