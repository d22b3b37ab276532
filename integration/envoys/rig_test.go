package envoys_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/tailxds/tailxds/integration/harness"
	"github.com/tailxds/tailxds/integration/shares"
)

// What every test runs, built once.
var (
	programs harness.Programs
	buildErr error
)

func TestMain(m *testing.M) {
	if why := harness.UnavailableReason(); why != "" {
		fmt.Fprintln(os.Stderr, "no test with real Envoys is run:", why)
		m.Run()
		return
	}
	dir, err := os.MkdirTemp("", "tailxds-envoys")
	if buildErr = err; err == nil {
		programs, buildErr = harness.Build(context.Background(), dir)
	}
	m.Run()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

func newRig(t *testing.T) *harness.Rig {
	t.Helper()
	if buildErr != nil {
		t.Fatal(buildErr)
	}
	return harness.New(t, programs)
}

func TestWeights_twoServers_sharesFollow(t *testing.T) {
	r := newRig(t)
	a, b := r.Server("a"), r.Server("b")
	control := r.ControlPlane("", a.Device("tag:weight-1"), b.Device("tag:weight-2"))
	entry := control.Envoy("entry")
	entry.AwaitHealthy("server", 2)
	want := shares.Shares{"a": 1, "b": 2}
	if err := r.Host("laptop").CheckShares(harness.Get(entry.URL(10000), ""), want, shares.OneStepWrong(want)...); err != nil {
		t.Error(err)
	}
}
