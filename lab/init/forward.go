package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// forward hands each connection to listen on to another address, until ctx ends.
// What the lab's own machine may reach goes through here where a container can't
// be on a network that leads out: a tsnet node, as the control plane is, binds
// its connections to the interface with the default route, and would not find
// headscale any more.
func forward(ctx context.Context, listen, to string) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return fmt.Errorf("listening for what is to be forwarded: %w", err)
	}
	return forwardFrom(ctx, listener, to)
}

// forwardFrom closes the listener.
func forwardFrom(ctx context.Context, listener net.Listener, to string) error {
	context.AfterFunc(ctx, func() { _ = listener.Close() })
	for ctx.Err() == nil {
		from, err := listener.Accept()
		switch {
		case err == nil:
			go pipe(ctx, from, to)
		case ctx.Err() == nil:
			return fmt.Errorf("accepting a connection to forward: %w", err)
		}
	}
	return nil
}

const connectTimeout = 5 * time.Second

// pipe ends with both connections closed. Whoever is away shows as a connection
// that is closed at once.
func pipe(ctx context.Context, from net.Conn, to string) {
	defer func() { _ = from.Close() }()
	conn, err := (&net.Dialer{Timeout: connectTimeout}).DialContext(ctx, "tcp", to)
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = errors.Join(from.Close(), conn.Close()) })
	defer stop()
	done := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{from, conn}, {conn, from}} {
		go func() {
			_, _ = io.Copy(way[1], way[0]) // either end may go at any time
			done <- struct{}{}
		}()
	}
	<-done
}
