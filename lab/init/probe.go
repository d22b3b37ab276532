package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const probeTimeout = 2 * time.Second

// firstChecks is how long a server may keep an Envoy that has just started from
// being ready. WireGuard asks again for a path 5 s after a first packet that was
// lost, and a server that is down must not hold the lab for longer than that takes.
const firstChecks = 15 * time.Second

// ready is Envoy's health check: Envoy says it is up, it has got from the control
// plane the listener that all requests come in by, and each server that it was
// told of has answered its first check, or had the time to.
func ready(ctx context.Context, admin, listener string) error {
	if err := get(ctx, admin+"/ready", io.Discard); err != nil {
		return err
	}
	conn, err := (&net.Dialer{Timeout: probeTimeout}).DialContext(ctx, "tcp", listener)
	if err != nil {
		return fmt.Errorf("no listener yet from the control plane: %w", err)
	}
	if err := conn.Close(); err != nil {
		return fmt.Errorf("closing the connection to the listener: %w", err)
	}
	return settled(ctx, admin)
}

// settled tells whether all servers are healthy, or Envoy has been up for longer
// than [firstChecks].
func settled(ctx context.Context, admin string) error {
	var stats strings.Builder
	filter := url.Values{"filter": {`^cluster\..*\.membership_(healthy|total)$`}}
	if err := get(ctx, admin+"/stats?"+filter.Encode(), &stats); err != nil {
		return err
	}
	healthy, total := 0, 0
	for line := range strings.Lines(stats.String()) {
		name, count, _ := strings.Cut(strings.TrimSpace(line), ": ")
		n, err := strconv.Atoi(count)
		if err != nil {
			return fmt.Errorf("reading the statistics of Envoy, which say %q: %w", line, err)
		}
		if strings.HasSuffix(name, "total") {
			total += n
		} else {
			healthy += n
		}
	}
	if healthy >= total {
		return nil
	}
	up, err := uptime(ctx, admin)
	if err != nil {
		return fmt.Errorf("reading the server_info of Envoy: %w", err)
	}
	if up < firstChecks {
		return fmt.Errorf("%d of %d endpoints have not answered a first check", total-healthy, total)
	}
	return nil
}

// uptime is how long Envoy has been up, to the second.
func uptime(ctx context.Context, admin string) (time.Duration, error) {
	var info bytes.Buffer
	if err := get(ctx, admin+"/server_info", &info); err != nil {
		return 0, err
	}
	var server struct {
		Up string `json:"uptime_current_epoch"`
	}
	if err := json.Unmarshal(info.Bytes(), &server); err != nil {
		return 0, err
	}
	return time.ParseDuration(server.Up)
}

func get(ctx context.Context, address string, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return fmt.Errorf("%q is not a URL: %w", address, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("asking %s: %w", address, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(out, resp.Body); err != nil {
		return fmt.Errorf("reading the answer of %s: %w", address, err)
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s answered %s", address, resp.Status)
	}
	return nil
}
