// Package load sends a number of requests to one URL and counts who answered.
package load

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// maxBody is how much of an answer counts as its text.
const maxBody = 64 << 10

// Options say what to send. The zero values of all but URL and Requests work.
type Options struct {
	URL      string
	Requests int
	// Concurrency is how many requests are in flight at once, 8 by default.
	// One by one shows an exact round robin; many are faster.
	Concurrency int
	// Timeout of one request with its answer, 5 s by default.
	Timeout time.Duration
	// Progress, if set, is called after each request, from one goroutine.
	Progress func(done, failed int)
}

// Result is what came back.
type Result struct {
	// Answers counts each distinct text of a 2xx answer.
	Answers map[string]int
	// Failures counts each reason for which a request got no 2xx answer.
	Failures map[string]int
}

// Run sends opts.Requests requests. It stops early only if ctx ends; what was
// counted until then is returned with ctx's error.
func Run(ctx context.Context, opts Options) (Result, error) {
	if err := validate(opts); err != nil {
		return Result{}, err
	}
	opts.Concurrency = min(cmp.Or(opts.Concurrency, 8), opts.Requests)
	opts.Timeout = cmp.Or(opts.Timeout, 5*time.Second)
	client, closeIdle := newClient(opts)
	defer closeIdle()

	todo := make(chan struct{})
	outcomes := make(chan outcome)
	go func() {
		defer close(todo)
		for range opts.Requests {
			select {
			case todo <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	var workers sync.WaitGroup
	for range opts.Concurrency {
		workers.Go(func() {
			for range todo {
				outcomes <- send(ctx, client, opts.URL)
			}
		})
	}
	go func() { workers.Wait(); close(outcomes) }()

	result := Result{Answers: map[string]int{}, Failures: map[string]int{}}
	for o := range outcomes {
		if o.reason != "" && ctx.Err() != nil {
			continue // cut off by the caller; the server did not fail
		}
		result.count(o)
		if opts.Progress != nil {
			opts.Progress(result.Answered()+result.Failed(), result.Failed())
		}
	}
	if ctx.Err() != nil {
		return result, fmt.Errorf("stopped after %d of %d requests: %w",
			result.Answered()+result.Failed(), opts.Requests, ctx.Err())
	}
	return result, nil
}

func validate(opts Options) error {
	u, err := url.Parse(opts.URL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return fmt.Errorf("%q is not a URL to send requests to; write it like http://west-1:10000/", opts.URL)
	}
	if opts.Requests < 1 {
		return fmt.Errorf("the number of requests is %d; it must be 1 or more", opts.Requests)
	}
	if opts.Concurrency < 0 {
		return fmt.Errorf("the concurrency is %d; it must be 1 or more", opts.Concurrency)
	}
	if opts.Timeout < 0 {
		return fmt.Errorf("the timeout is %v; it must be longer than 0", opts.Timeout)
	}
	return nil
}

// newClient keeps one connection a worker, and uses no proxy: what is measured
// is the named address.
func newClient(opts Options) (client *http.Client, closeIdle func()) {
	transport := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: opts.Timeout}).DialContext,
		TLSHandshakeTimeout: opts.Timeout,
		MaxIdleConns:        opts.Concurrency,
		MaxIdleConnsPerHost: opts.Concurrency,
		MaxConnsPerHost:     opts.Concurrency,
	}
	return &http.Client{Transport: transport, Timeout: opts.Timeout}, transport.CloseIdleConnections
}

// outcome is one request's end: an answer, or the reason why there is none.
type outcome struct{ answer, reason string }

func send(ctx context.Context, client *http.Client, target string) outcome {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return outcome{reason: err.Error()}
	}
	resp, err := client.Do(req)
	if err != nil {
		return outcome{reason: reason(err)}
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return outcome{reason: "reading the answer: " + reason(err)}
	}
	text := oneLine(string(body))
	if resp.StatusCode/100 != 2 {
		return outcome{reason: strings.TrimSuffix(resp.Status+": "+text, ": ")}
	}
	return outcome{answer: text}
}

// reason takes off what differs from request to request, as the URL and the
// local port do, so that equal failures are counted as one.
func reason(err error) string {
	var ue *url.Error
	if errors.As(err, &ue) {
		if ue.Timeout() {
			return "timed out"
		}
		err = ue.Err
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op != "dial" {
		return op.Op + ": " + op.Err.Error()
	}
	return err.Error()
}

// oneLine keeps each answer on one line of the report.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), " ")
}

func (r Result) count(o outcome) {
	if o.reason != "" {
		r.Failures[o.reason]++
		return
	}
	r.Answers[o.answer]++
}

// Answered is the number of requests that got a 2xx answer.
func (r Result) Answered() int { return sum(r.Answers) }

// Failed is the number of requests that got none.
func (r Result) Failed() int { return sum(r.Failures) }

// Write prints each answer with its share of all answers, the most frequent
// first and equally frequent ones by their text, and the failures last.
func (r Result) Write(w io.Writer) error {
	var b strings.Builder
	answered := r.Answered()
	for _, text := range byCount(r.Answers) {
		n := r.Answers[text]
		fmt.Fprintf(&b, "%s: %.1f%% (%d)\n", text, 100*float64(n)/float64(answered), n)
	}
	fmt.Fprintf(&b, "Failed: %d\n", r.Failed())
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("printing the result: %w", err)
	}
	return nil
}

// WriteReasons prints why requests failed, the most frequent reason first.
func (r Result) WriteReasons(w io.Writer) error {
	for _, text := range byCount(r.Failures) {
		if _, err := fmt.Fprintf(w, "%d × %s\n", r.Failures[text], text); err != nil {
			return fmt.Errorf("printing why requests failed: %w", err)
		}
	}
	return nil
}

func byCount(counts map[string]int) []string {
	return slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
}

func sum(counts map[string]int) int {
	total := 0
	for _, n := range counts {
		total += n
	}
	return total
}
