package load

import (
	"context"
	"time"

	"golang.org/x/time/rate"
)

// maxRate is the highest rate that is accepted, in requests a second.
const maxRate = 1_000_000

// maxConcurrency is more requests in flight than one machine has connections for.
const maxConcurrency = 60_000

// schedule hands out the times at which requests are due. With a rate these
// depend on nothing but the time of the start: whoever takes one late is late,
// and the next is due no later for that.
func (o Options) schedule(ctx context.Context, began time.Time, due chan<- time.Time) {
	at := time.Now // the next is due as soon as somebody can send it
	if o.Rate > 0 {
		at = evenSchedule(o.Rate, began)
	}
	over := make(<-chan time.Time) // never
	if o.Duration > 0 && o.Rate == 0 {
		timer := time.NewTimer(o.Duration)
		defer timer.Stop()
		over = timer.C
	}
	for n := 0; o.Planned() == 0 || n < o.Planned(); n++ {
		next := at()
		if !waitUntil(ctx, next) {
			return
		}
		select {
		case due <- next:
		case <-over:
			return
		case <-ctx.Done():
			return
		}
	}
}

// evenSchedule gives the times of a rate, the first of them at its start. Every place
// is reserved at the start itself. A limiter that were asked as time goes on
// would forgive the time in which nobody asked, and with it the omission that an
// open loop is there to avoid.
func evenSchedule(perSecond float64, began time.Time) func() time.Time {
	limiter := rate.NewLimiter(rate.Limit(perSecond), 1)
	return func() time.Time { return began.Add(limiter.ReserveN(began, 1).DelayFrom(began)) }
}

// waitUntil waits for a time, and tells whether it has come.
func waitUntil(ctx context.Context, at time.Time) bool {
	wait := time.Until(at)
	if wait <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
