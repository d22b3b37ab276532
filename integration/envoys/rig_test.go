package envoys_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/tailxds/tailxds/integration/envoys"
	"github.com/tailxds/tailxds/integration/shares"
)

var programs envoys.Programs

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if why := envoys.Unusable(); why != "" {
		fmt.Fprintln(os.Stderr, "no test with real Envoys is run:", why)
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "tailxds-envoys")
	if err == nil {
		defer func() { _ = os.RemoveAll(dir) }()
		programs, err = envoys.Build(context.Background(), dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func TestSharesFollowTheWeights(t *testing.T) {
	r := envoys.New(t, programs)
	a, b := r.Server("a"), r.Server("b")
	control := r.ControlPlane("", a.Device("tag:weight-1"), b.Device("tag:weight-2"))
	entry := control.Envoy("entry")
	entry.AwaitHealthy("server", 2)
	want := shares.Shares{"a": 1, "b": 2}
	tally := r.Host("laptop").Ask(shares.Enough(want, shares.OneStepWrong(want)...), envoys.Get(entry.URL(10000), ""))
	if err := shares.Check(tally.By(shares.Host), want); err != nil {
		t.Error(err)
	}
}
