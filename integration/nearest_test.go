package integration_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/tailxds/tailxds/integration/browser"
	"github.com/tailxds/tailxds/integration/engine"
	"github.com/tailxds/tailxds/integration/lab"
	"github.com/tailxds/tailxds/integration/shares"
)

// edgeAddress is where this machine reaches a part of the lab while no port is
// published. A request from here has the source that one through a published
// port has: the network's gateway.
func edgeAddress(ctx context.Context, t *testing.T, l *lab.Lab, service string) netip.Addr {
	t.Helper()
	output, err := engine.Docker(ctx, "inspect", "--format",
		fmt.Sprintf("{{(index .NetworkSettings.Networks %q).IPAddress}}", l.Project+"_"+edge), l.Container(service))
	if err != nil {
		t.Fatal(err)
	}
	address, err := netip.ParseAddr(output)
	if err != nil {
		t.Fatalf("%s has no address on the edge: %v", service, err)
	}
	return address
}

// thisMachineReachesTheLaptop asks as `curl http://localhost:10000` does, and as
// a browser asks for the control plane's pages.
func thisMachineReachesTheLaptop(ctx context.Context, t *testing.T, w *walk) {
	for service, want := range map[string]struct{ port, path, says string }{
		"laptop": {"10000", "/", "Hello from "},
		"page":   {"9090", "/readyz", "ready"},
	} {
		url := fmt.Sprintf("http://%s:%s%s", edgeAddress(ctx, t, w.Lab, service), want.port, want.path)
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err != nil || response.StatusCode != http.StatusOK || !strings.Contains(string(body), want.says) {
			t.Errorf("%s: %s %q, %v", url, response.Status, body, err)
		}
	}
	answer, err := engine.Exec(ctx, w.Container("laptop"), "client", "http://localhost:10000", "100")
	if err != nil {
		t.Fatal(err)
	}
	if tally, err := shares.Parse(answer); err != nil || tally.Answered() != 100 {
		t.Errorf("the laptop's own client says %q (%v)", answer, err)
	}
}

// setLocality edits the one line of the policy file.
func (w *walk) setLocality(t *testing.T, mode string) {
	t.Helper()
	text, err := os.ReadFile(w.policy)
	if err != nil {
		t.Fatal(err)
	}
	const key = "    locality: "
	before, rest, found := strings.Cut(string(text), key)
	_, after, ended := strings.Cut(rest, " #")
	if !found || !ended {
		t.Fatalf("%s has no line with a locality:\n%s", w.policy, text)
	}
	if err := os.WriteFile(w.policy+".new", []byte(before+key+mode+" #"+after), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(w.policy+".new", w.policy); err != nil {
		t.Fatal(err)
	}
}

// entries are where requests enter, and how many a second. West's Envoys take
// fewer than west's weight can serve, so all that enters there can stay; east
// must send some away.
var entries = []struct {
	device, region string
	rate           int
}{{"west-1", "west", 10}, {"laptop", "west", 10}, {"east-1", "east", 100}}

// nearestCrossesNoMoreThanItMust holds the shares of what enters in both regions
// against the weights, and what crosses between them against the least possible.
func nearestCrossesNoMoreThanItMust(ctx context.Context, t *testing.T, w *walk) {
	w.setLocality(t, "nearest")
	// The weights give west a third. It takes in a sixth, so a fifth of what
	// enters in east has to cross, and nothing from west.
	fromWest, fromEast := shares.Shares{"west": 1}, shares.Shares{"west": 1, "east": 4}
	stop := w.enters(ctx, t)
	w.awaitCrossing(ctx, t, "laptop", 0, 0.02)
	w.awaitCrossing(ctx, t, "east-1", 0.17, 0.23)
	page := w.livePage(ctx, t)
	page.crosses(ctx, t, 20./120)
	browser.Want(page.Tab, `document.querySelector('#k-cross-sub').textContent`, "nearest")
	tallies := stop(t)

	// The same once more, now that it is known what enters where.
	const seconds = 10
	var group errgroup.Group
	for i, entry := range entries {
		group.Go(func() (err error) {
			tallies[i], err = w.Ask(ctx, envoy(entry.device), seconds*entry.rate, fmt.Sprintf("--rate=%d", entry.rate))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	all := shares.Tally{Counts: map[string]int{}}
	for i, entry := range entries {
		want := fromWest
		if entry.region == "east" {
			want = fromEast
		}
		if err := shares.Check(tallies[i].By(shares.Region), want); err != nil {
			t.Errorf("what enters at %s: %v", entry.device, err)
		}
		all.Add(tallies[i])
	}
	if err := shares.Check(all.By(shares.Host), bothRegions); err != nil {
		t.Errorf("of all the world's requests: %v", err)
	}
	w.setLocality(t, "weighted")
}

// enters lets requests enter until the function it returns is called.
func (w *walk) enters(ctx context.Context, t *testing.T) func(*testing.T) []shares.Tally {
	t.Helper()
	var stops []func() (shares.Tally, error)
	for _, entry := range entries {
		stop, err := w.FlowAt(ctx, envoy(entry.device), entry.rate)
		if err != nil {
			t.Fatal(err)
		}
		stops = append(stops, stop)
	}
	return func(t *testing.T) []shares.Tally {
		t.Helper()
		var tallies []shares.Tally
		for i, stop := range stops {
			tally, err := stop()
			if err != nil {
				t.Fatal(err)
			}
			if tally.Failed > 0 {
				t.Errorf("of what entered at %s while the mode changed, %d failed: %s", entries[i].device, tally.Failed, tally.Reasons)
			}
			tallies = append(tallies, tally)
		}
		return tallies
	}
}

// awaitCrossing waits until the part of its requests that an Endpoint's Envoy sends to
// the other region lies between two bounds. It counts what it sends meanwhile.
func (w *walk) awaitCrossing(ctx context.Context, t *testing.T, service string, low, high float64) {
	t.Helper()
	const enough = 50
	before := w.sent(ctx, t, service)
	await(ctx, t, func() error {
		now := w.sent(ctx, t, service)
		here, away := now.here-before.here, now.away-before.away
		if here+away < enough {
			return fmt.Errorf("%s's Envoy has sent %d requests", service, here+away)
		}
		before = now
		if part := float64(away) / float64(here+away); part < low || part > high {
			return fmt.Errorf("%s's Envoy sends %.2f of its requests to the other region, not %.2f to %.2f", service, part, low, high)
		}
		return nil
	})
}

// sent is how many requests an Envoy has sent to servers of its own region, and
// of the other.
type sent struct{ here, away int }

func (w *walk) sent(ctx context.Context, t *testing.T, service string) sent {
	t.Helper()
	hosts, err := w.Hosts(ctx, service)
	if err != nil {
		t.Fatal(err)
	}
	region := "west"
	if strings.HasPrefix(service, "east") {
		region = "east"
	}
	var s sent
	for _, host := range hosts {
		if host.Region == region {
			s.here += host.Requests
		} else {
			s.away += host.Requests
		}
	}
	return s
}

// localStaysAtHome asks in both regions.
func localStaysAtHome(ctx context.Context, t *testing.T, w *walk) {
	w.setLocality(t, "local")
	for service, want := range map[string]shares.Shares{
		"laptop": {"west-1": 1, "west-2": 1}, "west-2": {"west-1": 1, "west-2": 1}, "east-1": {"east-1": 2, "east-2": 2},
	} {
		await(ctx, t, func() error { return w.prefers(ctx, service, want) })
		assertShares(ctx, t, w.Lab, envoy(service), want)
	}
	w.setLocality(t, "weighted")
	w.awaitWeights(ctx, t, bothRegions, "laptop")
}

// prefers returns nil if an Envoy has just these servers in its first priority.
func (w *walk) prefers(ctx context.Context, service string, want shares.Shares) error {
	hosts, err := w.Hosts(ctx, service)
	if err != nil {
		return err
	}
	for _, host := range hosts {
		if first := host.Priority == 0; first != (want[host.Name] > 0) {
			return fmt.Errorf("%s's Envoy has %v with priority %d", service, host, host.Priority)
		}
	}
	return nil
}
