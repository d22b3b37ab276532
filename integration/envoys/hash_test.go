package envoys_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tailxds/tailxds/integration/harness"
)

// from is a request of one user.
func from(url, user string) harness.Request {
	return func(ctx context.Context) (*http.Request, error) {
		r, err := harness.Get(url, "")(ctx)
		if err == nil {
			r.Header.Set("x-user", user)
		}
		return r, err
	}
}

// Who belongs together goes to the same server, and the others are spread by
// weight; the header tells who answered, whatever the server says.
func TestHashPolicy_sameKey_sameServer(t *testing.T) {
	t.Parallel()
	for _, algorithm := range []string{"ring_hash", "maglev"} {
		r := newRig(t)
		a, b := r.Server("a"), r.Server("b")
		control := r.ControlPlane(fmt.Sprintf("defaults: {load_balancing: %s, hash_on: {header: x-user}, show_endpoint: true}", algorithm),
			a.Device("tag:weight-1"), b.Device("tag:weight-3"))
		entry := control.Envoy("entry")
		entry.AwaitHealthy("server", 2)
		answers := map[string]int{}
		for user := range 400 {
			var first string
			for range 3 {
				status, body, err := entry.Once(from(entry.URL(10000), fmt.Sprint(user)))
				if err != nil || status != http.StatusOK {
					t.Fatalf("%s: %d, %v", algorithm, status, err)
				}
				if first == "" {
					first = body
				} else if body != first {
					t.Fatalf("%s: user %d was answered %q and %q", algorithm, user, first, body)
				}
			}
			answers[first]++
		}
		// 300 of 400 users are b's; 60 more or less is seven times their deviation.
		if n := answers["Hello from b! in nowhere"]; n < 240 || n > 360 {
			t.Errorf("%s: %v", algorithm, answers)
		}
	}
}

func TestServedByHeader_set_namesServer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.Server("a")
	a.Handle(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("x-tailxds-endpoint", "somebody else") })
	control := r.ControlPlane("defaults: {show_endpoint: true}", a.Device("tag:weight-1"))
	entry := control.Envoy("entry")
	entry.AwaitHealthy("server", 1)
	answer := func() *http.Response {
		t.Helper()
		request, err := harness.Get(entry.URL(10000), "")(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		response, err := entry.Client().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		return response
	}
	if got := answer().Header.Values("x-tailxds-endpoint"); len(got) != 1 || got[0] != "a" {
		t.Errorf("got %q, want a", got)
	}
	control.SetPolicy("")
	r.Await("the header is the server's own again", func() error {
		if got := answer().Header.Get("x-tailxds-endpoint"); got != "somebody else" {
			return fmt.Errorf("got %q", got)
		}
		return nil
	})
}

// One attempt that hangs does not use up the time of the whole request.
func TestPerTryTimeout_slowAttempt_isRetried(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, b := r.Server("a"), r.Server("b")
	a.Handle(func(_ http.ResponseWriter, request *http.Request) { <-request.Context().Done() }) // for ever
	control := r.ControlPlane("defaults: {timeout: 15s, attempt_timeout: 300ms}", a.Device("tag:weight-1"), b.Device("tag:weight-1"))
	entry := control.Envoy("entry")
	entry.AwaitHealthy("server", 2)
	for range 4 { // one of two goes to a first
		began := time.Now()
		status, body, err := entry.Once(harness.Get(entry.URL(10000), ""))
		if err != nil || status != http.StatusOK || !strings.Contains(body, "from b") {
			t.Fatalf("%d %s, %v", status, body, err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
	}
	if n := entry.Stat("cluster.server.upstream_rq_per_try_timeout"); n == 0 {
		t.Error("no attempt timed out, so this test proves nothing")
	}
}
