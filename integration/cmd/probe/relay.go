package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"tailscale.com/derp/derpserver"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"

	"github.com/tailxds/tailxds/integration/selfsigned"
)

// relay serves DERP until ctx ends, for a tailnet whose relay is not its
// coordination server. Nobody checks its certificate.
func relay(ctx context.Context, address string) error {
	certificate, err := selfsigned.Certificate("relay")
	if err != nil {
		return fmt.Errorf("making a certificate: %w", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listening for DERP: %w", err)
	}
	derp := derpserver.New(key.NewNode(), logger.Discard)
	defer derp.Close()
	server := &http.Server{
		Handler:           derpserver.Handler(derp),
		ReadHeaderTimeout: 5 * time.Second,
		// DERP takes the connection over, which HTTP/2 can't give away.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	err = server.Serve(tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{certificate}}))
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serving DERP: %w", err)
}
