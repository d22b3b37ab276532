// Command client sends requests to a URL and prints who answered how often.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/tailxds/tailxds/internal/load"
)

// What the exit status says.
const (
	exitOK          = 0
	exitFailed      = 1 // some requests failed
	exitUsage       = 2
	exitInterrupted = 130
)

const usage = `client sends N requests to URL and prints who answered how often.

usage: client [flags] URL N

  client http://west-1:10000/ 1000

Exit status: 0 all requests were answered, 1 some failed (standard error says
why), 2 it was called wrongly, 130 it was interrupted.

flags:
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr, term.IsTerminal(int(os.Stderr.Fd())))
	stop()
	os.Exit(code)
}

// run writes the result to stdout and all else to stderr; progress only where
// stderr is a terminal.
func run(ctx context.Context, args []string, stdout, stderr io.Writer, terminal bool) int {
	opts, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		fmt.Fprintln(stderr, "client:", err)
		return exitUsage
	}
	clear := func() {}
	if terminal {
		opts.Progress, clear = progress(stderr, opts.Requests)
	}

	result, err := load.Run(ctx, opts)
	clear()
	if err != nil {
		fmt.Fprintln(stderr, "client:", err)
		if ctx.Err() == nil {
			return exitUsage
		}
	}
	if err := errors.Join(result.Write(stdout), result.WriteReasons(stderr)); err != nil {
		fmt.Fprintln(stderr, "client:", err)
		return exitFailed
	}
	switch {
	case ctx.Err() != nil:
		return exitInterrupted
	case result.Failed() > 0:
		return exitFailed
	default:
		return exitOK
	}
}

func parse(args []string, stderr io.Writer) (load.Options, error) {
	flags := flag.NewFlagSet("client", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	concurrency := flags.Int("concurrency", 8, "requests in flight at once")
	timeout := flags.Duration("timeout", 5*time.Second, "how long one request may take")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stderr, usage)
		flags.SetOutput(stderr)
		flags.PrintDefaults()
		return load.Options{}, err
	case err != nil:
		return load.Options{}, fmt.Errorf("%w; client -help lists the flags", err)
	}
	if flags.NArg() != 2 {
		return load.Options{}, fmt.Errorf("it takes a URL and a number of requests, not %d arguments; write it like: client http://west-1:10000/ 1000", flags.NArg())
	}
	n, err := strconv.Atoi(flags.Arg(1))
	if err != nil {
		return load.Options{}, fmt.Errorf("%q is not a number of requests; write it like: client %s 1000", flags.Arg(1), flags.Arg(0))
	}
	return load.Options{URL: flags.Arg(0), Requests: n, Concurrency: *concurrency, Timeout: *timeout}, nil
}

// progress redraws one line, at most ten times a second, and clears it.
func progress(w io.Writer, total int) (show func(done, failed int), clear func()) {
	var last time.Time
	var width int
	show = func(done, failed int) {
		if now := time.Now(); now.Sub(last) >= 100*time.Millisecond || done == total {
			last = now
			line := fmt.Sprintf("%d of %d, %d failed", done, total, failed)
			fmt.Fprintf(w, "\r%-*s", width, line)
			width = len(line)
		}
	}
	clear = func() { fmt.Fprintf(w, "\r%s\r", strings.Repeat(" ", width)) }
	return show, clear
}
