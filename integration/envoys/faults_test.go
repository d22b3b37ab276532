package envoys_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/tailxds/tailxds/integration/harness"
	"github.com/tailxds/tailxds/integration/shares"
)

// Faults under load, counted by the client. Each test says how many requests may
// fail, and why.

// workers is how many requests are under way at a time.
const workers = 4

// fleet is three of the lab's servers, and an Envoy that knows them.
type fleet struct {
	*harness.Rig
	a, b, c *harness.LabServer
	control *harness.ControlPlane
	entry   *harness.Envoy
}

func newFleet(t *testing.T, policy string) *fleet {
	r := newRig(t)
	f := &fleet{Rig: r, a: r.LabServer("a"), b: r.LabServer("b"), c: r.LabServer("c")}
	f.control = r.ControlPlane(policy, f.devices()...)
	f.entry = f.control.Envoy("entry")
	f.entry.AwaitHealthy("server", 3)
	return f
}

func (f *fleet) devices() []harness.Device {
	return []harness.Device{f.a.Device("tag:weight-1"), f.b.Device("tag:weight-1"), f.c.Device("tag:weight-1")}
}

// flow is requests, until they are counted. The lab's server answers none but
// those that are safe to repeat.
func (f *fleet) flow() *harness.Load {
	load := f.Host("laptop").Flow(workers, harness.Get(f.entry.URL(10000), ""))
	load.AwaitMore(f.Rig, 200)
	return load
}

// failed counts the requests of a load that failed, and wants no more than may.
func failed(t *testing.T, load *harness.Load, may int) {
	t.Helper()
	tally := load.Stop()
	t.Logf("%d of %d requests failed", tally.Failed, tally.Failed+tally.Answered())
	if tally.Failed > may {
		t.Errorf("%d of %d requests failed, and %d may: %s", tally.Failed, tally.Failed+tally.Answered(), may, tally.Reasons)
	}
}

// A server that is killed loses the requests that are in its hands. They are safe
// to repeat, so each is sent to another, and none fails.
func TestServer_killedUnderLoad_noSafeRequestFails(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "")
	load := f.flow()
	f.a.Kill()
	load.AwaitMore(f.Rig, 2000)
	f.entry.AwaitStats(map[string]int{"cluster.server.membership_healthy": 2})
	failed(t, load, 0)
}

// A server that is cut off says nothing, so a request that waits for it ends only
// by the policy's time: with attempt_timeout it is sent to another after that, and
// none fails. Without, as many may as are under way: each waits for all the time
// that a request has, and by then the server is out.
func TestServer_cutOffUnderLoad_fewRequestsFail(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		policy string
		may    int
	}{
		"with attempt_timeout":    {"defaults: {attempt_timeout: 1s}", 0},
		"without attempt_timeout": {"defaults: {timeout: 8s}", workers},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, test.policy)
			load := f.flow()
			if err := f.a.CutOff(true); err != nil {
				t.Fatal(err)
			}
			f.entry.AwaitStats(map[string]int{"cluster.server.membership_healthy": 2})
			load.AwaitMore(f.Rig, 2000)
			if err := f.a.CutOff(false); err != nil {
				t.Fatal(err)
			}
			f.entry.AwaitStats(map[string]int{"cluster.server.membership_healthy": 3})
			load.AwaitMore(f.Rig, 200)
			failed(t, load, test.may)
		})
	}
}

// A hundred weights change, five with each list, which is read once a second. That
// costs no request, safe to repeat or not, and the last is what counts.
func TestWeights_hundredChangesUnderLoad_noRequestFails(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var servers []*harness.Server
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		servers = append(servers, r.Server(name))
	}
	devices := func(round int) (all []harness.Device, want shares.Shares) {
		want = make(shares.Shares)
		for i, s := range servers {
			weight := 1 + (i+round)%len(servers)
			want[s.Name] = float64(weight)
			all = append(all, s.Device(fmt.Sprintf("tag:weight-%d", weight)))
		}
		return all, want
	}
	list, want := devices(0)
	control := r.ControlPlane("", list...)
	entry := control.Envoy("entry")
	entry.AwaitHealthy("server", len(servers))
	laptop := r.Host("laptop")
	gets, posts := laptop.Flow(workers, harness.Get(entry.URL(10000), "")), laptop.Flow(workers, harness.Post(entry.URL(10000), ""))
	for round := 1; round <= 100/len(servers); round++ {
		before := entry.Stat("cluster.server.update_success")
		list, want = devices(round)
		control.SetDevices(list...)
		r.Await("the change reaches Envoy", func() error {
			if entry.Stat("cluster.server.update_success") == before {
				return errors.New("not yet")
			}
			return nil
		})
	}
	for _, load := range []*harness.Load{gets, posts} {
		load.AwaitMore(r, 200)
		failed(t, load, 0)
	}
	if err := laptop.CheckShares(harness.Get(entry.URL(10000), ""), want, shares.OneStepWrong(want)...); err != nil {
		t.Error(err)
	}
}

// While both control planes are away, Envoys serve on by what they have, and find
// out by themselves that a server died. Envoy notices once that it has lost them;
// what it does from then on, to try again every so often, does not depend on how
// long that lasts, so this test ends much sooner than a minute. Once they are
// back, they are followed.
func TestControlPlanes_bothAway_envoysFindDeadServer(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "")
	other := f.ControlPlane("", f.devices()...)
	entry := f.control.EnvoyBy("both", "--control-plane", f.control.V4.String(), "--control-plane", other.V4.String(), "--envoy-admin", "127.0.0.1:9901")
	entry.AwaitHealthy("server", 3)
	f.entry = entry
	load := f.flow()
	f.control.Stop()
	other.Stop()
	entry.AwaitStats(map[string]int{"control_plane.connected_state": 0})
	f.a.Kill()
	entry.AwaitStats(map[string]int{"cluster.server.membership_healthy": 2, "cluster.server.membership_total": 3})
	load.AwaitMore(f.Rig, 2000)
	left := []harness.Device{f.b.Device("tag:weight-1"), f.c.Device("tag:weight-1")}
	f.control.SetDevices(left...)
	other.SetDevices(left...)
	f.control.Start()
	other.Start()
	entry.AwaitHealthy("server", 2)
	load.AwaitMore(f.Rig, 200)
	failed(t, load, 0)
}
