// Package shutdown takes a server out of rotation before it stops. Envoy's image has
// no shell and an application's need not have one, so a small program beside them
// does it: see deploy/server.
package shutdown

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"
)

// callTimeout bounds each call: both ends are in the same network namespace.
const callTimeout = 2 * time.Second

// Options configure which programs are told, and how long to wait then.
type Options struct {
	// EnvoyAdmin is the base URL of Envoy's admin page. Once told, Envoy closes each
	// client's connection with its next answer, so that clients go elsewhere. Empty
	// tells no Envoy.
	EnvoyAdmin string
	// UnhealthyURL makes the application fail its health checks, so that every
	// Envoy stops choosing it. Empty tells no application.
	UnhealthyURL string
	// HealthyURL undoes that. Empty is for an application that always restarts after a
	// drain, and is healthy then.
	HealthyURL string
	// Wait is how long clients and Envoys have to notice.
	Wait time.Duration
}

// Run tells Envoy and the application, then waits, even if one of them could not be
// told: requests that still arrive are served until the wait is over. It ends early
// only with ctx.
func Run(ctx context.Context, opts Options) error {
	over := time.NewTimer(opts.Wait)
	defer over.Stop()

	var faults []error
	if opts.EnvoyAdmin != "" {
		faults = append(faults, call(ctx, http.MethodPost, strings.TrimSuffix(opts.EnvoyAdmin, "/")+"/healthcheck/fail"))
	}
	if opts.UnhealthyURL != "" {
		faults = append(faults, call(ctx, http.MethodGet, opts.UnhealthyURL))
	}
	select {
	case <-over.C:
	case <-ctx.Done():
		faults = append(faults, fmt.Errorf("the drain was cut short: %w", ctx.Err()))
	}
	return errors.Join(faults...)
}

// Undo tells Envoy and the application that an earlier drain is over: one of them
// may have outlived it, as when only the other restarted. One that refuses
// connections has not started, and has nothing to undo.
func Undo(ctx context.Context, opts Options) error {
	var faults []error
	if opts.EnvoyAdmin != "" {
		faults = append(faults, call(ctx, http.MethodPost, strings.TrimSuffix(opts.EnvoyAdmin, "/")+"/healthcheck/ok"))
	}
	if opts.HealthyURL != "" {
		faults = append(faults, call(ctx, http.MethodGet, opts.HealthyURL))
	}
	return errors.Join(slices.DeleteFunc(faults, func(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) })...)
}

func call(ctx context.Context, method, url string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return fmt.Errorf("draining by %s: %w", url, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("draining: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("draining: %s answered %s", url, resp.Status)
	}
	return nil
}
