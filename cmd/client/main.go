// Command client sends requests to a URL and prints who answered how often, and
// at a given rate how long that took.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
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
	exitUnexpected  = 3 // an --expect was not met
	exitInterrupted = 130
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr, term.IsTerminal(int(os.Stderr.Fd())))
	stop()
	os.Exit(code)
}

// run writes the result to stdout and all else to stderr; progress only where
// stderr is a terminal.
func run(ctx context.Context, args []string, stdout, stderr io.Writer, terminal bool) int {
	asked, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		fmt.Fprintln(stderr, "client:", err)
		return exitUsage
	}
	clear := func() {}
	if terminal {
		asked.load.Progress, clear = progress(stderr, asked.load.Planned())
	}

	result, err := load.Run(ctx, asked.load)
	clear()
	if err != nil {
		fmt.Fprintln(stderr, "client:", err)
		if ctx.Err() == nil {
			return exitUsage
		}
	}
	met := result.Check(asked.expected)
	write := result.Write
	if asked.json {
		write = func(w io.Writer) error { return result.WriteJSON(w, met) }
	}
	if err := errors.Join(write(stdout), result.WriteReasons(stderr)); err != nil {
		fmt.Fprintln(stderr, "client:", err)
		return exitFailed
	}
	if ctx.Err() != nil {
		return exitInterrupted
	}
	return judge(result, met, stderr)
}

// judge says what was not as expected, and gives the exit status.
func judge(result load.Result, met []load.Met, stderr io.Writer) int {
	code := exitOK
	for _, m := range met {
		if !m.OK {
			fmt.Fprintln(stderr, "client:", m)
			code = exitUnexpected
		}
	}
	if result.Failed() > 0 {
		return exitFailed
	}
	return code
}

// progress redraws one line, at most ten times a second, and clears it. A total
// of 0 is not known.
func progress(w io.Writer, total int) (show func(done, failed int), clear func()) {
	var last time.Time
	var width int
	show = func(done, failed int) {
		if now := time.Now(); now.Sub(last) >= 100*time.Millisecond || done == total {
			last = now
			line := fmt.Sprintf("%d of %d, %d failed", done, total, failed)
			if total == 0 {
				line = fmt.Sprintf("%d, %d failed", done, failed)
			}
			fmt.Fprintf(w, "\r%-*s", width, line)
			width = len(line)
		}
	}
	clear = func() { fmt.Fprintf(w, "\r%s\r", strings.Repeat(" ", width)) }
	return show, clear
}
