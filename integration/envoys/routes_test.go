package envoys_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/tailxds/tailxds/integration/harness"
	"github.com/tailxds/tailxds/integration/shares"
)

// beta is a request with a header.
func beta(ask harness.Request, value string) harness.Request {
	return func(ctx context.Context) (*http.Request, error) {
		r, err := ask(ctx)
		if err == nil {
			r.Header.Set("x-beta", value)
		}
		return r, err
	}
}

// Requests go where the first rule sends them, by path, header and weight. What
// is sent to nobody is answered 503, and by no other service.
func TestRoutes_rulesAndSplits_followPolicy(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	hello, next, other := r.Server("hello"), r.Server("next"), r.Server("other")
	rules := `
services:
  hello:
    routes:
    - {path: /both, headers: {x-beta: "yes"}, service: other}
    - {path: /nobody, service: nobody}
    - {path: /empty, service: empty}
    - {path: /mixed, split: {empty: 1, other: 1}}
    - split: {hello: %d, next: %d}
  empty: {}
  other: {show_endpoint: true}
`
	control := r.ControlPlane(fmt.Sprintf(rules, 75, 25), r.Server("default").Device(), hello.Device("tag:service-hello"),
		next.Device("tag:service-next"), other.Device("tag:service-other"))
	entry := control.Envoy("entry")
	for _, service := range []string{"hello", "next", "other"} {
		entry.AwaitHealthy(service, 1)
	}
	url := entry.URL(10000)
	get := func(path string) harness.Request { return harness.Get(url+path, "hello") }

	for _, test := range []struct {
		name string
		ask  harness.Request
		want string
	}{
		{"path and header", beta(get("both"), "yes"), "from other"},
		{"below the path", beta(get("both/below?x"), "yes"), "from other"},
		{"unsafe method", beta(harness.Post(url+"both", "hello"), "yes"), "from other"},
		{"unknown", get("nobody/x"), "nobody serves nobody"},
		{"empty", get("empty"), "no healthy upstream"},
	} {
		status, body, err := entry.Once(test.ask)
		if ok := strings.HasPrefix(test.want, "from"); err != nil || !strings.Contains(body, test.want) || ok != (status == http.StatusOK) {
			t.Errorf("%s: %d %s, %v", test.name, status, body, err)
		}
	}

	// By default a rule applies to the path's segments and the header's value, and
	// the rest is split.
	split := func(ask harness.Request, want shares.Shares, wrong ...shares.Shares) {
		t.Helper()
		if err := r.Host("laptop").CheckShares(ask, want, wrong...); err != nil {
			t.Error(err)
		}
	}
	quarters, halves := shares.Shares{"hello": 3, "next": 1}, shares.Shares{"hello": 1, "next": 1}
	for _, ask := range []harness.Request{get(""), get("bother"), beta(get("both"), "no"), harness.Post(url, "hello")} {
		split(ask, quarters, halves)
	}
	half := r.Host("laptop").Ask(1000, get("mixed"))
	if got := half.By(shares.Host).Counts; len(got) != 1 || got["other"] < 400 || got["other"] > 600 {
		t.Errorf("half goes to nobody: %v, %d failed: %s", got, half.Failed, half.Reasons)
	}

	// The weights change under load, and a service that a rule waited for comes.
	load := r.Host("laptop").Flow(4, get(""))
	control.SetPolicy(fmt.Sprintf(rules, 0, 1))
	r.Await("all goes to the next", func() error {
		if got := r.Host("laptop").Ask(50, get("")).By(shares.Host); got.Counts["next"] != 50 {
			return fmt.Errorf("%v", got.Counts)
		}
		return nil
	})
	late := r.Server("late")
	control.SetDevices(r.Server("default").Device(), hello.Device("tag:service-hello"), next.Device("tag:service-next"),
		other.Device("tag:service-other"), late.Device("tag:service-nobody"))
	r.Await("the service that was unknown answers", func() error {
		if _, body, err := entry.Once(get("nobody")); err != nil || !strings.Contains(body, "from late") {
			return fmt.Errorf("%s, %w", body, errors.Join(err, errors.New("not yet")))
		}
		return nil
	})
	if tally := load.Stop(); tally.Failed > 0 {
		t.Errorf("%d of %d requests failed: %s", tally.Failed, tally.Failed+tally.Answered(), tally.Reasons)
	}
	if rejected := control.Rejected(); rejected != "" {
		t.Errorf("Envoy rejected: %s", rejected)
	}
}
