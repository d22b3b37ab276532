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
	return exitCode(result, met, stderr)
}

// exitCode says what was not as expected, and gives the exit status.
func exitCode(result load.Result, met []load.ShareResult, stderr io.Writer) int {
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

const usage = `client sends N requests to URL and prints who answered how often.

usage: client [flags] URL [N]

  client http://west-1:10000/ 1000
  client --rate 500 --duration 30s http://west-1:10000/
  client --expect west=33±5 --expect east=67±5 http://west-1:10000/ 1000

With --rate requests fall due evenly, however slow the answers are. How long
each took is counted from when it was due, so a server that stalls shows in all
requests that it kept waiting.

Exit status: 0 all requests were answered, 1 some failed, 3 all were answered
and the shares are not as expected, 2 it was called wrongly, 130 it was
interrupted. Standard error says why.

flags:
`

// arguments is what the command line asks for.
type arguments struct {
	load     load.Options
	expected []load.Expectation
	json     bool
}

func parse(args []string, stderr io.Writer) (arguments, error) {
	var a arguments
	flags := flag.NewFlagSet("client", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.IntVar(&a.load.Concurrency, "concurrency", 0,
		fmt.Sprintf("requests in flight at once, at most (default %d, with --rate %d)", load.DefaultConcurrency, load.DefaultOpenConcurrency))
	flags.DurationVar(&a.load.Timeout, "timeout", load.DefaultTimeout, "how long one request may take")
	flags.Func("rate", "requests that fall due each second `R`, in an open loop", func(text string) error {
		var err error
		if a.load.Rate, err = strconv.ParseFloat(text, 64); err != nil || a.load.Rate <= 0 {
			return errors.New("write it like --rate 500, in requests a second")
		}
		return nil
	})
	flags.DurationVar(&a.load.Duration, "duration", 0, "how long to send requests; N may be left out then")
	flags.Func("expect", "that a `SHARE` of the answers like west=33±5 has the word, in percent and points; may be repeated", func(text string) error {
		e, err := load.ParseExpectation(text)
		a.expected = append(a.expected, e)
		return err
	})
	flags.Func("o", "`FORMAT` of the result: text or json (default text)", func(text string) error {
		a.json = text == "json"
		if text != "json" && text != "text" {
			return errors.New("write -o json or -o text")
		}
		return nil
	})
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stderr, usage)
		flags.SetOutput(stderr)
		flags.PrintDefaults()
		return arguments{}, err
	case err != nil:
		return arguments{}, fmt.Errorf("%w; client -help lists the flags", err)
	}
	return a, a.arguments(flags.Args())
}

// arguments takes the URL and the number of requests.
func (a *arguments) arguments(args []string) error {
	if len(args) != 2 && (len(args) != 1 || a.load.Duration == 0) {
		return fmt.Errorf("it takes a URL and a number of requests, not %d arguments; write it like: client http://west-1:10000/ 1000", len(args))
	}
	a.load.URL = args[0]
	if len(args) == 1 {
		return nil
	}
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return fmt.Errorf("%q is not a number of requests; write it like: client %s 1000", args[1], args[0])
	}
	if n < 1 {
		return fmt.Errorf("the number of requests is %d; it must be 1 or more", n)
	}
	a.load.Requests = n
	return nil
}
