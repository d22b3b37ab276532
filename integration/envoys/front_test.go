package envoys_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/tailxds/tailxds/integration/harness"
	"github.com/tailxds/tailxds/integration/shares"
)

// block is the one code block of docs/servers.md that has a text.
func block(t *testing.T, with string) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/servers.md")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, match := range regexp.MustCompile("(?ms)^```[a-z]*\n(.*?)^```").FindAllStringSubmatch(string(page), -1) {
		if strings.Contains(match[1], with) {
			found = append(found, match[1])
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d code blocks of docs/servers.md have %q", len(found), with)
	}
	return found[0]
}

// theClient waits for the line of a path in an Envoy's access log, and returns
// who it says is the client.
func theClient(r *harness.Rig, e *harness.Envoy, path string) (client string) {
	r.Await("a line for "+path, func() error {
		lines := logged(e, path)
		if len(lines) != 1 {
			return fmt.Errorf("%d lines", len(lines))
		}
		client = fmt.Sprint(lines[0]["client"])
		return nil
	})
	return client
}

// "In front of users" of docs/servers.md with a real Caddy, by the policy and the
// Caddyfile that stand there.
func TestFront_caddy_servesAndKeepsClientAddress(t *testing.T) {
	t.Parallel()
	policy, caddyfile := block(t, "trusted_hops: 1"), block(t, "reverse_proxy")
	policy = strings.Replace(policy, "ingress:\n", "ingress:\n  access_log: all\n", 1)
	r := newRig(t)
	a, b := r.Server("a"), r.Server("b")
	control := r.ControlPlane(policy, a.Device("tag:weight-1"), b.Device("tag:weight-2"))
	edge, other, laptop := control.Envoy("edge"), control.Envoy("west-2"), r.Host("laptop")
	edge.AwaitHealthy("server", 2)
	other.AwaitHealthy("server", 2)
	url := "https://" + edge.V4.String() + "/"

	caddy := edge.Caddy(caddyfile, "example.com")
	laptop.TLS = caddy.ClientTLS("example.com")
	want := shares.Shares{"a": 1, "b": 2}
	if err := laptop.CheckShares(harness.Get(url, "example.com"), want, shares.OneStepWrong(want)...); err != nil {
		t.Error(err)
	}
	// Its own address is the client's, whatever it claims.
	laptop.Ask(1, func(ctx context.Context) (*http.Request, error) {
		request, err := proxied(url+"forged", "203.0.113.7")(ctx)
		if err == nil {
			request.Host = "example.com"
		}
		return request, err
	})
	if client := theClient(r, edge, "/forged"); client != laptop.V4.String() {
		t.Errorf("the client is %s, and it is %s", client, laptop.V4)
	}

	// With a second Envoy behind it, one that restarts costs nothing.
	caddy.Stop()
	two := strings.Replace(caddyfile, "127.0.0.1:10000 {", "127.0.0.1:10000 "+other.V4.String()+":10000 {\n\t\tlb_policy first", 1)
	if two == caddyfile {
		t.Fatalf("the Caddyfile has no place for a second Envoy:\n%s", caddyfile)
	}
	edge.Caddy(two, "example.com")
	load := laptop.Flow(4, harness.Get(url, "example.com"))
	load.AwaitMore(r, 200)
	edge.Stop()
	load.AwaitMore(r, 200)
	control.EnvoyOn(edge.Host).AwaitHealthy("server", 2)
	load.AwaitMore(r, 200)
	if tally := load.Stop(); tally.Failed > 0 {
		t.Errorf("%d requests failed: %s", tally.Failed, tally.Reasons)
	}
}

// Funnel is a proxy on the Envoy's own host: it comes from loopback, says the
// client's address, and asks for the device's own name.
func TestFront_funnel_keepsClientAddress(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.Server("a")
	control := r.ControlPlane("ingress: {trusted_hops: 1, access_log: all}", a.Device("tag:weight-1"))
	edge := control.Envoy("edge")
	edge.AwaitHealthy("server", 1)
	tally := edge.Ask(1, func(ctx context.Context) (*http.Request, error) {
		request, err := proxied("http://127.0.0.1:10000/funnel", "203.0.113.7")(ctx)
		if err == nil {
			request.Host = "edge.tail1234.ts.net"
		}
		return request, err
	})
	if tally.By(shares.Host).Counts["a"] != 1 {
		t.Errorf("the default service did not answer: %+v", tally)
	}
	if client := theClient(r, edge, "/funnel"); client != "203.0.113.7" {
		t.Errorf("the client is %s", client)
	}
}

// Who is the client by `trusted_hops`: as many proxies are believed, and nothing
// that was there before them.
func TestFront_trustedHops_namesClient(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.Server("a")
	control := r.ControlPlane("", a.Device("tag:weight-1"))
	entry, balancer := control.Envoy("entry"), r.Host("balancer")
	entry.AwaitHealthy("server", 1)
	for i, c := range []struct {
		hops             int
		forwarded, wants string
	}{
		{0, "203.0.113.7", balancer.V4.String()},
		{1, "198.51.100.1, 203.0.113.7", "203.0.113.7"},
		// Google Cloud's appends the client's address and its own.
		{2, "198.51.100.1, 203.0.113.7, 192.0.2.1", "203.0.113.7"},
	} {
		control.SetPolicy(fmt.Sprintf("ingress: {access_log: all, trusted_hops: %d}", c.hops))
		// The lines of another policy's time say something else, or are not there.
		path := fmt.Sprintf("/%d", i)
		r.Await(fmt.Sprintf("with %d trusted hops the client is %s", c.hops, c.wants), func() error {
			balancer.Ask(1, proxied(entry.URL(10000)+path[1:], c.forwarded))
			lines := logged(entry, path)
			if len(lines) == 0 || lines[len(lines)-1]["client"] != c.wants {
				return fmt.Errorf("the lines are %v", lines)
			}
			return nil
		})
	}
}
