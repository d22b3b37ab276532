// Package load sends requests to one URL, and tells who answered how often and
// how long that took.
package load

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"net"
	"net/url"
	"sync"
	"time"
)

// What [Options] have unless told otherwise.
const (
	DefaultConcurrency = 8
	// DefaultOpenConcurrency is the concurrency with a rate: so many that requests hardly
	// ever wait for each other.
	DefaultOpenConcurrency = 1_000
	DefaultTimeout         = 5 * time.Second
)

// Options say what to send. Either Requests or Duration must be set; the zero
// values of all others but URL work.
type Options struct {
	URL string
	// Requests is how many are sent, unless Duration ends first. 0 is no bound.
	Requests int
	// Duration is for how long requests are sent. 0 is no bound.
	Duration time.Duration
	// Rate is how many requests fall due each second, however fast the answers
	// come (an open loop). 0 sends the next request when an answer is there.
	Rate float64
	// Concurrency is how many requests are in flight at once, 8 by default, and
	// 1,000 with a rate. One by one shows an exact round robin; many are faster.
	Concurrency int
	// Timeout of one request with its answer, 5 s by default.
	Timeout time.Duration
	// Progress, if set, is called after each request, from one goroutine.
	Progress func(done, failed int)

	dial func(ctx context.Context, network, address string) (net.Conn, error) // of tests
}

// Run sends requests. It stops early only if ctx ends; what was counted until
// then is returned with ctx's error.
func Run(ctx context.Context, opts Options) (Result, error) {
	if err := validate(opts); err != nil {
		return Result{}, err
	}
	opts = opts.withDefaults()
	client, closeIdle := newClient(opts)
	defer closeIdle()

	began := time.Now()
	due := make(chan time.Time)
	go func() {
		defer close(due)
		opts.schedule(ctx, began, due)
	}()
	outcomes := make(chan outcome)
	var workers sync.WaitGroup
	for range opts.Concurrency {
		workers.Go(func() {
			for at := range due {
				o := send(ctx, client, opts.URL)
				// From when the request was due, not from when there was room for
				// it: what a stalled server keeps waiting counts too.
				o.took = time.Since(at)
				outcomes <- o
			}
		})
	}
	go func() { workers.Wait(); close(outcomes) }()

	result := newResult(opts)
	for o := range outcomes {
		if o.reason != "" && ctx.Err() != nil {
			continue // cut off by the caller; the server did not fail
		}
		result.count(o)
		if opts.Progress != nil {
			opts.Progress(result.Requests(), result.Failed())
		}
	}
	result.Elapsed = time.Since(began)
	if ctx.Err() != nil {
		return result, fmt.Errorf("stopped after %d%s requests: %w", result.Requests(), opts.outOf(), ctx.Err())
	}
	return result, nil
}

func (o Options) withDefaults() Options {
	if o.Rate > 0 {
		o.Concurrency = cmp.Or(o.Concurrency, DefaultOpenConcurrency)
	}
	o.Concurrency = cmp.Or(o.Concurrency, DefaultConcurrency)
	if n := o.Planned(); n > 0 {
		o.Concurrency = min(o.Concurrency, n)
	}
	o.Timeout = cmp.Or(o.Timeout, DefaultTimeout)
	return o
}

// Planned is how many requests will be sent; 0 where only the answers' pace
// tells.
func (o Options) Planned() int {
	if o.Rate <= 0 || o.Duration <= 0 {
		return o.Requests
	}
	// The first is due at once.
	n := int(min(math.Ceil(o.Rate*o.Duration.Seconds()), math.MaxInt32))
	if o.Requests > 0 {
		return min(n, o.Requests)
	}
	return n
}

func (o Options) outOf() string {
	if n := o.Planned(); n > 0 {
		return fmt.Sprintf(" of %d", n)
	}
	return ""
}

func validate(opts Options) error {
	u, err := url.Parse(opts.URL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return fmt.Errorf("%q is not a URL to send requests to; write it like http://west-1:10000/", opts.URL)
	}
	switch {
	case opts.Requests < 0 || (opts.Requests == 0 && opts.Duration == 0):
		return fmt.Errorf("the number of requests is %d; it must be 1 or more", opts.Requests)
	case opts.Duration < 0:
		return fmt.Errorf("the duration is %v; it must be longer than 0", opts.Duration)
	case opts.Rate < 0 || opts.Rate > maxRate || math.IsNaN(opts.Rate):
		return fmt.Errorf("the rate is %v requests a second; it must be more than 0, and at most %d", opts.Rate, maxRate)
	case opts.Concurrency < 0 || opts.Concurrency > maxConcurrency:
		return fmt.Errorf("the concurrency is %d; it must be from 1 to %d", opts.Concurrency, maxConcurrency)
	case opts.Timeout < 0:
		return fmt.Errorf("the timeout is %v; it must be longer than 0", opts.Timeout)
	}
	return nil
}
