package envoys_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tailxds/tailxds/integration/harness"
)

// served returns nil if a request from the host is answered.
func served(from *harness.Host, url string) error {
	status, body, err := from.Once(harness.Get(url, ""))
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("status %d: %s", status, body)
	}
	return err
}

// closed returns nil if a connection from the host is accepted, so that a probe
// of the port passes, and closed before anything is asked for.
func closed(t *testing.T, from *harness.Host, url string) error {
	t.Helper()
	c, err := from.Dial(t.Context(), "tcp", strings.Trim(strings.TrimPrefix(url, "http:"), "/"))
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	n, err := c.Read(make([]byte, 1))
	if n == 0 && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)) {
		return nil
	}
	return fmt.Errorf("the connection stays open: %d bytes, %w", n, err)
}

func TestIngressAllow_addresses_admitOrRefuse(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, laptop := r.Server("a"), r.Host("laptop")
	outside := r.HostAt("outside", netip.MustParseAddr("203.0.113.5"), netip.MustParseAddr("2001:db8::5"))
	edge := r.HostAt("edge", netip.MustParseAddr("100.128.0.1"), netip.MustParseAddr("fd7a:115c:a1e1::1")) // just beyond
	control := r.ControlPlane("", a.Device("tag:weight-1"))
	entry := control.Envoy("entry")
	entry.AwaitHealthy("server", 1)

	for _, url := range []string{entry.URL(10000), entry.URL6(10000)} {
		if err := served(laptop, url); err != nil {
			t.Errorf("from the tailnet: %v", err)
		}
		for _, stranger := range []*harness.Host{outside, edge} {
			if err := closed(t, stranger, url); err != nil {
				t.Errorf("from %s to %s: %v", stranger.Name, url, err)
			}
		}
	}
	for _, host := range []string{"127.0.0.1", "127.9.9.9", "::1", entry.V4.String(), entry.V6.String()} {
		if err := served(entry.Host, "http://"+net.JoinHostPort(host, "10000")); err != nil {
			t.Errorf("from the same host to %s: %v", host, err)
		}
	}

	// More by the policy; a connection that is open goes on.
	flow := laptop.Flow(4, harness.Get(entry.URL(10000), ""))
	control.SetPolicy("ingress: {allow: [tailnet, 203.0.113.0/24]}")
	r.Await("the network is let in", func() error { return served(outside, entry.URL(10000)) })
	if err := closed(t, outside, entry.URL6(10000)); err != nil {
		t.Errorf("by IPv6, which was not named: %v", err)
	}
	if err := closed(t, entry.Host, "http://127.0.0.1:10000/"); err != nil {
		t.Errorf("loopback, which is named no more: %v", err)
	}

	// Another port.
	control.SetPolicy("ingress: {port: 8000, allow: [tailnet, '::/0', 0.0.0.0/0]}")
	r.Await("the port is another", func() error { return errors.Join(served(outside, entry.URL(8000)), served(outside, entry.URL6(8000))) })
	r.Await("nobody listens on the old one", func() error {
		if err := served(laptop, entry.URL(10000)); !errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("got %w", err)
		}
		return nil
	})
	flow.Stop()
	if rejected := control.Rejected(); rejected != "" {
		t.Errorf("Envoy rejected: %s", rejected)
	}
}

// A host whose kernel has no IPv6 loses that listener, and nothing else.
func TestIngress_noIPv6_servesOnIPv4(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, laptop := r.Server("a"), r.Host("laptop")
	control := r.ControlPlane("", a.Device("tag:weight-1"))
	entry := control.EnvoyWithoutIPv6("entry")
	entry.AwaitHealthy("server", 1)
	if err := served(laptop, entry.URL(10000)); err != nil {
		t.Error(err)
	}
	if rejected := control.Rejected(); !strings.Contains(rejected, "ingress-ipv6: malformed IP address: ::") {
		t.Errorf("/status says that Envoy rejected %q; docs/operations.md says otherwise", rejected)
	}
	control.SetPolicy("ingress: {port: 8000}")
	r.Await("an edit acts", func() error { return served(laptop, entry.URL(8000)) })
	// And without networks of IPv6 there is nothing to reject.
	control.SetPolicy("ingress: {port: 8000, allow: [100.64.0.0/10]}")
	r.Await("nothing is rejected", func() error {
		if rejected := control.Rejected(); rejected != "" {
			return errors.New(rejected)
		}
		return served(laptop, entry.URL(8000))
	})
}

// The name of a service that nobody serves answers 503, and never as another.
func TestService_withoutServers_answers503(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, b := r.Server("a"), r.Server("b")
	control := r.ControlPlane("services: {shop: {hosts: [shop.example.com]}}", a.Device("tag:weight-1"))
	entry := control.Envoy("entry")
	entry.AwaitHealthy("server", 1)
	ask := func(host string) (int, string) {
		status, body, err := entry.Once(harness.Get(entry.URL(10000), host))
		if err != nil {
			t.Fatal(err)
		}
		return status, body
	}
	for _, host := range []string{"shop", "shop:10000", "shop.tailnet.example", "SHOP", "shop.example.com"} {
		if status, body := ask(host); status != http.StatusServiceUnavailable || strings.Contains(body, "Hello") {
			t.Errorf("%s: %d %s, want 503", host, status, body)
		}
	}
	if status, body := ask("other"); status != http.StatusOK || !strings.Contains(body, "Hello from a!") {
		t.Errorf("the default service: %d %s", status, body)
	}
	control.SetDevices(a.Device("tag:weight-1"), b.Device("tag:service-shop"))
	r.Await("somebody serves it", func() error {
		if status, body := ask("shop"); status != http.StatusOK || !strings.Contains(body, "Hello from b!") {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
}
