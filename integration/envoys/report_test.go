package envoys_test

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tailxds/tailxds/internal/traffic"

	"github.com/tailxds/tailxds/integration/harness"
	"github.com/tailxds/tailxds/integration/shares"
)

// measured is what the control plane says of a service's last minutes.
type measured struct {
	Step      time.Duration
	Endpoints []struct {
		Address          netip.AddrPort
		Requests, Errors []float64
	}
	Entries  map[string][]float64
	Crossing []float64
	Latency  []*struct{ P50, P99 float64 }
}

func (m measured) sum(of []float64) (all float64) {
	for _, n := range of {
		all += n * m.Step.Seconds()
	}
	return all
}

// table is the first service of /traffic.
func (w *world) table() (traffic.Table, error) {
	all, err := w.control.Traffic()
	if err == nil && len(all.Services) == 0 {
		err = errors.New("/traffic has no service")
	}
	if err != nil {
		return traffic.Table{}, err
	}
	return all.Services[0], nil
}

// fourServers are a 1 and b 3 in west, c and d with 2 each in east.
func fourServers(t *testing.T, policy string) *world {
	t.Helper()
	w := &world{Rig: newRig(t), servers: map[string]*harness.Server{}}
	var devices []harness.Device
	for name, tags := range map[string][]string{"a": {"weight-1", "region-west"}, "b": {"weight-3", "region-west"}, "c": {"weight-2", "region-east"}, "d": {"weight-2", "region-east"}} {
		w.servers[name] = w.Server(name)
		devices = append(devices, w.servers[name].Device("tag:"+tags[0], "tag:"+tags[1]))
	}
	w.control = w.ControlPlane(policy, devices...)
	return w
}

// near tells whether two counts are the same but for rounding.
func near(a, b float64) bool { return math.Abs(a-b) < 0.01*max(1, b/100) }

func TestTraffic_realPool_isWhatClientsCount(t *testing.T) {
	t.Parallel()
	w := fourServers(t, "defaults: {locality: exact, retries: 0}")
	for _, s := range w.servers {
		s.Handle(func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/fails" {
				rw.WriteHeader(http.StatusInternalServerError)
				return
			}
			time.Sleep(8 * time.Millisecond) // it is how long an answer takes
			s.Hello(rw)
		})
	}
	west, east := w.control.EnvoyIn("west", "west"), w.control.EnvoyIn("east", "east")
	west.AwaitHealthy("server", 4)
	east.AwaitHealthy("server", 4)
	counted := map[string]float64{}
	tally := west.Ask(600, harness.Get(west.URL(10000), "")).By(shares.Host)
	for name, n := range tally.Counts {
		counted[name] += float64(n)
	}
	for name, n := range east.Ask(200, harness.Get(east.URL(10000), "")).By(shares.Host).Counts {
		counted[name] += float64(n)
	}
	const fail = 12 // in turn, so that nobody is ejected
	before := w.served()
	for range fail {
		if status, _, err := east.Once(harness.Get(east.URL(10000)+"fails", "")); err != nil || status != http.StatusInternalServerError {
			t.Fatalf("status %d, %v", status, err)
		}
	}
	failed := map[string]float64{}
	for name, n := range w.served() {
		failed[name] = n - before[name]
		counted[name] += failed[name]
	}
	cross := 0.0
	w.Await("the history tells of all of it", func() error {
		var m measured
		if err := w.control.GetJSON("/history?service=server", &m); err != nil {
			return err
		}
		if got := m.sum(m.Entries["west"]); !near(got, 600) {
			return fmt.Errorf("%v entered in west", got)
		}
		if got := m.sum(m.Entries["east"]); !near(got, 200+fail) {
			return fmt.Errorf("%v entered in east", got)
		}
		for _, e := range m.Endpoints {
			name := w.nameOf(e.Address)
			if got := m.sum(e.Requests); !near(got, counted[name]) {
				return fmt.Errorf("%v requests to %s, want %v", got, name, counted[name])
			}
			if got := m.sum(e.Errors); !near(got, failed[name]) {
				return fmt.Errorf("%v errors of %s, want %v", got, name, failed[name])
			}
		}
		cross = m.sum(m.Crossing)
		for _, l := range m.Latency { // to within one of Envoy's buckets
			if l != nil && l.P50 >= 5 && l.P99 >= l.P50 {
				return nil
			}
		}
		return fmt.Errorf("no step took as long as an answer does: %v", m.Latency)
	})
	if total := 800.0 + fail; cross < 0.3*total || cross > 0.7*total {
		t.Errorf("%v of %v requests crossed, want about a half", cross, total)
	}
}

// served are the requests that each server got, health checks aside.
func (w *world) served() map[string]float64 {
	all := map[string]float64{}
	for name, s := range w.servers {
		all[name] = float64(s.Served.Load())
	}
	return all
}

func (w *world) nameOf(address netip.AddrPort) string {
	for name, s := range w.servers {
		if s.V4 == address.Addr() {
			return name
		}
	}
	return address.String()
}

func TestHealthReports_unhealthyServer_namesCheckers(t *testing.T) {
	t.Parallel()
	w := fourServers(t, "defaults: {locality: exact}")
	west, east := w.control.EnvoyIn("west", "west"), w.control.EnvoyIn("east", "east")
	west.AwaitHealthy("server", 4)
	east.AwaitHealthy("server", 4)
	flow := west.Flow(2, harness.Get(west.URL(10000), ""))
	defer flow.Stop()
	await := func(what string, sick string, expected map[string]float64) {
		t.Helper()
		w.Await(what, func() error {
			got, err := w.table()
			if err != nil {
				return err
			}
			for _, s := range got.Servers {
				healthy := 2
				if strings.Contains(sick, s.Name) {
					healthy = 0
				}
				if s.Reporting != 2 || s.Healthy != healthy || len(s.UnhealthyFor) != 2-healthy {
					return fmt.Errorf("%d of %d Envoys say that %s is healthy, not so %v", s.Healthy, s.Reporting, s.Name, s.UnhealthyFor)
				}
				if math.Abs(s.Expected-expected[s.Name]) > 1e-6 {
					return fmt.Errorf("%s is expected to get %v, want %v", s.Name, s.Expected, expected[s.Name])
				}
				if math.Abs(s.Observed-expected[s.Name]) > 0.05 {
					return fmt.Errorf("%s gets %v, want %v", s.Name, s.Observed, expected[s.Name])
				}
				if s.Errors > 0 {
					return fmt.Errorf("%v requests a second to %s fail", s.Errors, s.Name)
				}
			}
			status, err := w.control.Status()
			if err != nil {
				return err
			}
			if len(status.Problems) != len(sick) || (sick != "" && !strings.Contains(status.Problems[0].Reason, "unhealthy")) {
				return fmt.Errorf("the problems are %v", status.Problems)
			}
			return nil
		})
	}
	all := map[string]float64{"a": 1 / 8.0, "b": 3 / 8.0, "c": 2 / 8.0, "d": 2 / 8.0}
	await("all are well", "", all)
	w.servers["b"].SetUnhealthy(true)
	await("b is sick", "b", map[string]float64{"a": 1 / 5.0, "c": 2 / 5.0, "d": 2 / 5.0})
	w.servers["b"].SetUnhealthy(false)
	w.servers["c"].SetHealthCheckDelay(time.Hour)
	await("c is too slow, and b is well again", "c", map[string]float64{"a": 1 / 6.0, "b": 3 / 6.0, "d": 2 / 6.0})
	w.servers["c"].SetHealthCheckDelay(0)
	await("all are well again", "", all)

	status, err := w.control.Status()
	if err != nil {
		t.Fatal(err)
	}
	told := ""
	for _, c := range status.Changes {
		told += string(c.Kind) + " " + c.Name + "\n"
	}
	for _, want := range []string{"problem b\n", "mended b\n", "problem c\n", "mended c\n", "came "} {
		if !strings.Contains(told, want) {
			t.Errorf("the changes lack %q:\n%s", want, told)
		}
	}
}

// What is published is acknowledged, and the journal tells how soon.
func TestRollout_change_namesEnvoysThatHaveIt(t *testing.T) {
	t.Parallel()
	w := fourServers(t, "")
	for _, name := range []string{"one", "two"} {
		w.control.Envoy(name).AwaitHealthy("server", 4)
	}
	var devices []harness.Device
	for name, s := range w.servers {
		tags := []string{"tag:weight-1"}
		if name == "a" {
			tags = []string{"tag:weight-7"}
		}
		devices = append(devices, s.Device(tags...))
	}
	w.control.SetDevices(devices...)
	w.Await("both Envoys have the weight", func() error {
		status, err := w.control.Status()
		if err != nil {
			return err
		}
		for _, c := range status.Changes {
			if r := c.Rollout; c.Kind == "weight" && c.Name == "a" && c.To == "7" && r != nil && r.Sent == 2 && r.Acked == 2 && r.Rejected == 0 && r.Millis > 0 {
				return nil
			}
		}
		return fmt.Errorf("the changes are %+v", status.Changes)
	})
}

// Envoys that share a bootstrap, and the node that it names, each report as what
// they were started as; also to a control plane that has just started.
func TestReports_severalEnvoys_keptApart(t *testing.T) {
	t.Parallel()
	w := fourServers(t, "")
	for _, name := range []string{"one", "two"} {
		w.control.EnvoySharing("shared", name).AwaitHealthy("server", 4)
	}
	themselves := func() error {
		measured, err := w.control.Traffic()
		if err != nil {
			return err
		}
		status, err := w.control.Status()
		if err != nil {
			return err
		}
		var reporting, connected []string
		for _, e := range measured.Envoys {
			reporting = append(reporting, e.Node+" at "+e.Address.String())
		}
		for _, e := range status.Envoys {
			connected = append(connected, e.Node+" at "+e.Address.Addr().String())
		}
		slices.Sort(reporting)
		slices.Sort(connected)
		if !slices.Equal(reporting, connected) || len(reporting) != 2 || strings.Contains(strings.Join(connected, " "), "shared") {
			return fmt.Errorf("%v report, and %v are connected", reporting, connected)
		}
		return nil
	}
	w.Await("each reports as itself", themselves)
	w.control.Stop()
	w.control.Start()
	w.Await("each reports as itself to the next control plane", themselves)
}

// Whoever asks an Envoy for its statistics, as Prometheus does, takes nothing from
// what it reports.
func TestStats_resetByReader_reportsStayWhole(t *testing.T) {
	t.Parallel()
	w := fourServers(t, "defaults: {locality: exact, retries: 0}")
	e := w.control.EnvoyIn("west", "west")
	e.AwaitHealthy("server", 4)
	const each, times = 20, 20
	for range times {
		e.Ask(each, harness.Get(e.URL(10000), ""))
		for _, page := range []string{"/stats?usedonly", "/stats/prometheus"} {
			if status, _, err := e.Once(harness.Get("http://127.0.0.1:9901"+page, "")); err != nil || status != http.StatusOK {
				t.Fatalf("%s: %d, %v", page, status, err)
			}
		}
	}
	w.Await("the history tells of all of it", func() error {
		var m measured
		if err := w.control.GetJSON("/history?service=server", &m); err != nil {
			return err
		}
		if got := m.sum(m.Entries["west"]); !near(got, each*times) {
			return fmt.Errorf("%v of %d requests are told of", got, each*times)
		}
		return nil
	})
}
