package harness

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// Echo answers each line of a connection with the same line, until the connection or
// the test ends.
func (h *Host) Echo(port int) {
	r := h.rig
	r.t.Helper()
	l, err := h.Listen(fmt.Sprintf(":%d", port))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
}

// Upgraded takes a request to upgrade its connection (WebSocket), and then answers as
// [Host.Echo] does.
func Upgraded(w http.ResponseWriter, _ *http.Request) {
	c, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer func() { _ = c.Close() }()
	_, err = buffered.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	if err == nil && buffered.Flush() == nil {
		_, _ = io.Copy(c, buffered)
	}
}

// Line is a connection on which lines come back.
type Line struct {
	net.Conn
	read *bufio.Reader
}

// Connect opens a connection to an address, such as that of an [Host.Echo].
func (h *Host) Connect(ctx context.Context, address string) (*Line, error) {
	c, err := h.Dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &Line{c, bufio.NewReader(c)}, nil
}

// Upgrade opens a connection to an Envoy's port and has it upgraded.
func (h *Host) Upgrade(ctx context.Context, address, host string) (*Line, error) {
	l, err := h.Connect(ctx, address)
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(l, "GET /socket HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", host)
	if err == nil {
		err = l.SetReadDeadline(time.Now().Add(maxWait))
	}
	if err != nil {
		return nil, err
	}
	answer, err := http.ReadResponse(l.read, nil) //nolint:bodyclose // an upgraded connection has none; the test closes the connection
	if err == nil && answer.StatusCode != http.StatusSwitchingProtocols {
		err = fmt.Errorf("status %d", answer.StatusCode)
	}
	if err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("upgrade a connection: %w", err)
	}
	return l, nil
}

// RoundTrip sends a line and waits until it comes back.
func (l *Line) RoundTrip(text string) error {
	if err := l.SetDeadline(time.Now().Add(maxWait)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(l, text); err != nil {
		return err
	}
	got, err := l.read.ReadString('\n')
	if err == nil && got != text+"\n" {
		err = fmt.Errorf("said %q, and %q came back", text, got)
	}
	return err
}
