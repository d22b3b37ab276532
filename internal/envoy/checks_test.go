package envoy

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"github.com/tailxds/tailxds/internal/policy"
	"github.com/tailxds/tailxds/internal/topology/topologytest"
)

func TestCheckEvery(t *testing.T) {
	for _, c := range []struct {
		envoys int
		last   time.Duration
		want   time.Duration
	}{
		{0, 0, time.Second},
		{50, 0, time.Second},
		{51, time.Second, 2 * time.Second},
		{100, time.Second, 2 * time.Second},
		{101, time.Second, 4 * time.Second},
		{1_000, 0, 32 * time.Second},
		{1_000, time.Hour, 32 * time.Second},
		// Half as many as the shorter one bears, or it stays.
		{50, 2 * time.Second, 2 * time.Second},
		{26, 2 * time.Second, 2 * time.Second},
		{25, 2 * time.Second, time.Second},
		{401, 32 * time.Second, 32 * time.Second},
		{400, 32 * time.Second, 8 * time.Second},
		{1_000_000, 0, time.Hour},
		{1_000_000, time.Hour, time.Hour},
	} {
		if got := checkEvery(c.envoys, c.last); got != c.want {
			t.Errorf("%d Envoys after %v: every %v, want %v", c.envoys, c.last, got, c.want)
		}
	}
}

func TestNoServerIsCheckedTooOftenAndNoIntervalFlaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c Checks
		for range 50 {
			n := rapid.IntRange(0, 100_000).Draw(t, "envoys")
			before := c
			c = c.next(n, rapid.IntRange(0, n).Draw(t, "connected"))
			if rate := float64(n) / c.Every.Seconds(); rate > mostChecks {
				t.Fatalf("%d Envoys check each server %v times a second", n, rate)
			}
			// Nobody is left with one that is far longer than it must be.
			if c.Every > oftenest && float64(n) < mostChecks*c.Every.Seconds()/4 {
				t.Fatalf("%d Envoys check every %v only", n, c.Every)
			}
			// Around any number, a quarter more or less changes it once at most.
			for _, m := range []int{n - n/4, n} {
				if again := c.next(m, 0); again.Every != c.Every && before.Every == again.Every {
					t.Fatalf("%d and %d Envoys: %v, %v, %v", n, m, before.Every, c.Every, again.Every)
				}
			}
		}
	})
}

// A thousand Envoys check a thousand servers for ten minutes, each by its own
// clock and with Envoy's jitter. All servers are alike, so one is looked at.
func TestAThousandEnvoysAndAThousandServers(t *testing.T) {
	const envoys, minutes = 1_000, 10
	every := Checks{}.next(envoys, envoys).Every
	random := rand.New(rand.NewPCG(1, 2))
	var checks [minutes * 60]int // a second
	for range envoys {
		at := time.Duration(random.Int64N(int64(every)))
		for ; at < minutes*time.Minute; at += every + time.Duration(random.Int64N(int64(every)/10)) {
			checks[at/time.Second]++
		}
	}
	sum, most := 0, 0
	for _, n := range checks {
		sum += n
		most = max(most, n)
	}
	mean := float64(sum) / float64(len(checks))
	if mean > mostChecks || most > 2*mostChecks || mean < mostChecks/4 {
		t.Errorf("a server is checked %.1f times a second, and up to %d; want up to %d, and hardly ever twice that", mean, most, mostChecks)
	}
}

// interval is what Envoys are told of a service.
func interval(t *testing.T, built *Resources, service string) time.Duration {
	t.Helper()
	c, ok := built.All(Cds)[service].(*cluster.Cluster)
	if !ok {
		t.Fatalf("there is no cluster %s", service)
	}
	return c.GetHealthChecks()[0].GetInterval().AsDuration()
}

func TestBuild_intervalLeftOpen_followsTheDevices(t *testing.T) {
	devices := map[string][]string{}
	for i := range 101 {
		devices[fmt.Sprintf("d%d", i)] = []string{"tag:weight-1"}
	}
	p := mustParse(t, "services:\n  fixed:\n    health_check: {interval: 3s}\n")
	built := mustBuild(t, topologytest.Of(devices), p, nil)
	if got := interval(t, built, "server"); got != 4*time.Second || built.Checks() != (Checks{101, 4 * time.Second}) {
		t.Errorf("101 devices check every %v; %+v", got, built.Checks())
	}
	if got := interval(t, built, "fixed"); got != 3*time.Second {
		t.Errorf("an interval of 3 s became %v", got)
	}
	if p.Defaults.HealthCheck.Interval != policy.AutoInterval {
		t.Error("the policy itself was changed")
	}
	if got := interval(t, mustBuild(t, topologytest.OneService(), p, built), "server"); got != time.Second {
		t.Errorf("with few devices it is %v", got)
	}
}

func TestBuild_moreEnvoysThanDevices_countForTheInterval(t *testing.T) {
	built, err := Build(Input{Topology: topologytest.OneService(), Policy: policy.Default(), DefaultService: "server", Envoys: 51}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := built.Checks(); got != (Checks{51, 2 * time.Second}) {
		t.Errorf("%+v", got)
	}
}

func TestAnIntervalIsAutoOrADuration(t *testing.T) {
	for text, want := range map[string]policy.Interval{"auto": policy.AutoInterval, "100ms": policy.Interval(100 * time.Millisecond)} {
		p, err := policy.Parse([]byte("defaults:\n  health_check:\n    interval: " + text + "\n"))
		if err != nil || p.Defaults.HealthCheck.Interval != want {
			t.Errorf("%s is read as %v, %v", text, p.Defaults.HealthCheck.Interval, err)
		}
	}
	for _, text := range []string{"0s", "often", "2h", "-1s"} {
		if _, err := policy.Parse([]byte("defaults:\n  health_check:\n    interval: " + text + "\n")); err == nil {
			t.Errorf("%s was taken", text)
		}
	}
}
