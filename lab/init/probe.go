package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

const probeTimeout = 2 * time.Second

// ready is Envoy's health check: Envoy says it is up, and it has got from the
// control plane the listener that all requests come in by.
func ready(ctx context.Context, adminURL, listener string) error {
	if err := get(ctx, adminURL, io.Discard); err != nil {
		return err
	}
	conn, err := (&net.Dialer{Timeout: probeTimeout}).DialContext(ctx, "tcp", listener)
	if err != nil {
		return fmt.Errorf("no listener yet from the control plane: %w", err)
	}
	return conn.Close()
}

func get(ctx context.Context, url string, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("%q is not a URL: %w", url, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("asking %s: %w", url, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(out, resp.Body); err != nil {
		return fmt.Errorf("reading the answer of %s: %w", url, err)
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s answered %s", url, resp.Status)
	}
	return nil
}
