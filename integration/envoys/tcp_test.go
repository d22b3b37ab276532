package envoys_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tailxds/tailxds/integration/harness"
	"github.com/tailxds/tailxds/integration/shares"
)

// speaker says its name to each connection, and ends it.
func speaker(t *testing.T, h *harness.Host) {
	t.Helper()
	l, err := h.Listen(":5433")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = fmt.Fprint(c, h.Name)
			_ = c.Close()
		}
	}()
}

// Connections that are handed on as they are have the shares of their weights,
// a port of their own on every Envoy, and a check that connects.
func TestTCP_connections_sharedByWeight(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, b, web, dead := r.Host("a"), r.Host("b"), r.Server("web"), r.Host("dead")
	speaker(t, a)
	speaker(t, b)
	tags := func(weight string) []string {
		return []string{"tag:service-db", "tag:port-5433", "tag:weight-" + weight}
	}
	control := r.ControlPlane("services: {db: {protocol: tcp, listen: 5432}}", web.Device("tag:weight-1"),
		a.Device(tags("1")...), b.Device(tags("3")...), dead.Device(tags("4")...))
	entry := control.Envoy("entry")
	entry.AwaitStats(map[string]int{"cluster.db.membership_healthy": 2, "cluster.db.membership_total": 3})

	read := func(from *harness.Host, address string) (string, error) {
		c, err := from.Dial(t.Context(), "tcp", address)
		if err != nil {
			return "", err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return "", err
		}
		said, err := io.ReadAll(c)
		return string(said), err
	}
	laptop := r.Host("laptop")
	want := shares.Shares{"a": 1, "b": 3}
	tally := shares.Tally{Counts: map[string]int{}}
	for range shares.Enough(want, shares.Shares{"a": 1, "b": 1}) {
		who, err := read(laptop, net.JoinHostPort(entry.V4.String(), "5432"))
		if err != nil {
			t.Fatal(err)
		}
		tally.Counts[who]++
	}
	if err := shares.Check(tally, want); err != nil {
		t.Error(err)
	}
	if who, err := read(laptop, net.JoinHostPort(entry.V6.String(), "5432")); err != nil || who == "" {
		t.Errorf("by IPv6: %q, %v", who, err)
	}
	// Its name over HTTP is its own, too.
	if status, body, err := entry.Once(harness.Get(entry.URL(10000), "db")); err != nil || status != http.StatusServiceUnavailable || !strings.Contains(body, "port 5432") {
		t.Errorf("db over HTTP: %d %s, %v", status, body, err)
	}
	if status, body, err := entry.Once(harness.Get(entry.URL(10000), "")); err != nil || !strings.Contains(body, "from web") {
		t.Errorf("the others: %d %s, %v", status, body, err)
	}

	// Another port, and then none.
	control.SetPolicy("services: {db: {protocol: tcp, listen: 6000}}")
	r.Await("another port", func() error {
		_, err := read(laptop, net.JoinHostPort(entry.V4.String(), "6000"))
		return err
	})
	if rejected := control.Rejected(); rejected != "" {
		t.Errorf("Envoy rejected: %s", rejected)
	}
	// A port that is taken is refused by that Envoy, and said.
	taken, err := entry.Listen("0.0.0.0:7000")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	control.SetPolicy("services: {db: {protocol: tcp, listen: 7000}}")
	r.Await("the rejection", func() error {
		if rejected := control.Rejected(); !strings.Contains(rejected, "7000") {
			return fmt.Errorf("rejected: %q", rejected)
		}
		return nil
	})
}
