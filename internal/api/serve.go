package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

const (
	// maxBody bounds the body of a request where its handler sets no smaller bound,
	// in bytes.
	maxBody = 1 << 20
	// stopWithin is how long requests may take to end once the server stops.
	stopWithin = 2 * time.Second
)

// Serve answers on l until ctx ends, and returns once the requests that were
// running then have ended, or were cut off 2 s later. It closes l.
//
// Connections are bounded for each address and in all, and requests from other
// machines by rate, so that no client keeps the others from being answered.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	limits := newClientLimits(time.Now)
	server := &http.Server{
		Handler:           http.MaxBytesHandler(limits.limitRate(h), maxBody),
		ConnState:         limits.connState,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
		defer cancel()
		if server.Shutdown(grace) != nil {
			_ = server.Close() // the clients see it
		}
	})
	err := server.Serve(l)
	if !stop() {
		<-stopped
	}
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve admin pages on %s: %w", l.Addr(), err)
	}
	return nil
}
