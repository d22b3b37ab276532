package hostile_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/tailxds/tailxds/integration/harness"
	"github.com/tailxds/tailxds/integration/hostile"
)

// What every test runs, built once.
var (
	programs harness.Programs
	buildErr error
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "tailxds-hostile")
	if buildErr = err; err == nil {
		programs, buildErr = harness.BuildControlPlane(context.Background(), dir)
	}
	m.Run()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// start starts a control plane of two servers, or as the options say.
func start(t *testing.T, o hostile.Options) *hostile.ControlPlane {
	t.Helper()
	if buildErr != nil {
		t.Fatal(buildErr)
	}
	return hostile.Start(t, programs, o)
}

// Envoys check servers less often the more of them there are: what one peer opens
// must not count as many.
func TestHealthCheckInterval_manyStreamsOfOnePeer_stays(t *testing.T) {
	c := start(t, hostile.Options{})
	interval := func() (text string) {
		status, err := c.Status()
		if err != nil {
			t.Fatal(err)
		}
		if status.HealthChecks == nil {
			return ""
		}
		return status.HealthChecks.Interval
	}
	before := interval()
	const streams = 90
	var opened int
	cost := c.Measure(func() {
		conn := c.Dial(t, "127.1.0.1")
		for i := range streams {
			stream, err := hostile.Open(inTime(t), conn, hostile.DeltaADS)
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.SendMsg(hostile.DeltaRequest(hostile.Node(fmt.Sprintf("node-%d", i), "west"), hostile.ClusterType)); err != nil {
				t.Fatal(err)
			}
		}
		c.Await("the streams are open", func() error {
			status, err := c.Status()
			if err != nil {
				return err
			}
			if opened = len(status.Envoys); opened < streams {
				return errors.New("there are fewer")
			}
			return nil
		})
		// The interval is chosen anew when something is published.
		c.SetDevices(hostile.TwoServers("tag:weight-2")...)
		c.Await("the change is published", func() error {
			status, err := c.Status()
			if err != nil {
				return err
			}
			if len(status.Devices) == 0 || status.Devices[0].Tags[0] != "tag:weight-2" {
				return fmt.Errorf("the devices are %v", status.Devices)
			}
			return nil
		})
	})
	if after := interval(); after != before || after == "" {
		t.Errorf("%d streams of one peer make the interval %q of %q", opened, after, before)
	}
	cost.Check(t, hostile.Bound{Memory: 64 << 20})
}
