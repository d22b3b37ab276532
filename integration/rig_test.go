package integration_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ory/dockertest/v3/docker"

	"github.com/tailxds/tailxds/integration/lab"
	"github.com/tailxds/tailxds/integration/shares"
)

// onePerRegion is what the rig's tags promise.
var onePerRegion = shares.Shares{"west-1": 1, "east-1": 2}

// The control plane of the rig lists often and forgives little, so that it has
// every reason to drop an endpoint while a fault lasts.
const (
	pollInterval = time.Second
	offlineGrace = time.Second

	// faultLasts is how long a fault is asked through before it is mended: many
	// times longer than the two above.
	faultLasts = 6 * time.Second
)

func impatient(provider string) map[string]string {
	return map[string]string{
		"TS_ENVOY_PROVIDER":      provider,
		"TS_ENVOY_POLL_INTERVAL": pollInterval.String(),
		"TS_ENVOY_OFFLINE_GRACE": offlineGrace.String(),
	}
}

// TestRig_faults_requestsSurvive takes parts of a rig away and puts them back while requests flow.
func TestRig_faults_requestsSurvive(t *testing.T) {
	ctx, r := startRig(t)
	for _, step := range []struct {
		name string
		run  func(context.Context, *testing.T, *rig)
	}{
		{"two servers share by weight", rigComesUp},
		{"the control plane is killed and restarted", controlPlaneIsKilled},
		{"a server is cut off and put back", serverIsCutOff},
		{"a server loses only its coordination server", serverLosesItsCoordination},
		{"a device loses its tags", deviceLosesItsTags},
		{"all restarts without its coordination server", restartWithoutCoordination},
		{"headscale is stopped", headscaleIsStopped},
		{"headscale is paused", headscaleIsPaused},
		{"headscale has an empty database", headscaleForgets},
		{"the provider is switched", providerIsSwitched},
		{"headscale is stopped, and its API with it", headscaleIsStopped},
		{"headscale is paused, and its API with it", headscaleIsPaused},
		{"headscale refuses the token", headscaleRefuses},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(ctx, t, r) }) {
			t.FailNow()
		}
	}
}

func rigComesUp(ctx context.Context, t *testing.T, r *rig) {
	r.finishes(ctx, t, "prepare")
	r.relays(t)
	r.starts(ctx, t, "headscale", nil)
	r.finishes(ctx, t, "keys")
	r.starts(ctx, t, "control-plane", impatient("netmap"))
	for _, server := range []string{"west-1", "east-1"} {
		r.starts(ctx, t, server, nil)
		r.starts(ctx, t, server+"-server", nil)
	}
	r.starts(ctx, t, "west-1-envoy", nil)
	r.servesBoth(ctx, t)
	// What Envoy tells on its page, its threads may know a tenth of a second later.
	r.findsItsShares(ctx, t)
}

// url is the rig's Envoy, in the network from which requests are sent.
func (r *rig) url() string { return "http://127.0.0.1:10000/" }

func (r *rig) servesBoth(ctx context.Context, t *testing.T) {
	t.Helper()
	await(ctx, t, func() error { return r.Serves(ctx, "west-1", weights(onePerRegion)) })
}

// flow sends requests until the function it returns is called.
func (r *rig) flow(ctx context.Context, t *testing.T) func() (shares.Tally, error) {
	t.Helper()
	stop, err := r.Flow(ctx, r.url())
	if err != nil {
		t.Fatal(err)
	}
	return stop
}

// awaitEnvoy waits until the Envoy has its configuration from this provider.
func (r *rig) awaitEnvoy(ctx context.Context, t *testing.T, provider string) {
	t.Helper()
	await(ctx, t, func() error {
		status, err := r.Status(ctx)
		if err == nil && (status.Provider.Provider != provider || len(status.Envoys) != 1) {
			err = fmt.Errorf("the control plane says %+v, with %d Envoys", status.Provider, len(status.Envoys))
		}
		return err
	})
}

func controlPlaneIsKilled(ctx context.Context, t *testing.T, r *rig) {
	stop := r.flow(ctx, t)
	r.signal(t, "control-plane", docker.SIGKILL)
	r.ends(ctx, t, "control-plane")
	assertShares(ctx, t, r.Lab, r.url(), onePerRegion, shares.OneStepWrong(onePerRegion)...)

	r.restarts(ctx, t, "control-plane")
	r.awaitEnvoy(ctx, t, "netmap")
	r.servesBoth(ctx, t)
	assertShares(ctx, t, r.Lab, r.url(), onePerRegion, shares.OneStepWrong(onePerRegion)...)
	assertNoneFailed(t, stop)
}

// providerIsSwitched holds the resources of one provider against the other's,
// on the same tailnet and by the same Envoy.
func providerIsSwitched(ctx context.Context, t *testing.T, r *rig) {
	fromNetmap, err := r.Resources(ctx, "west-1")
	if err != nil {
		t.Fatal(err)
	}
	stop := r.flow(ctx, t)
	r.replace(ctx, t, "control-plane", impatient("headscale"))
	r.awaitEnvoy(ctx, t, "headscale")
	r.servesBoth(ctx, t)
	assertNoneFailed(t, stop)

	fromHeadscale, err := r.Resources(ctx, "west-1")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(fromNetmap)) {
		if fromHeadscale[name] != fromNetmap[name] {
			t.Errorf("%s differs:\nnetmap:    %s\nheadscale: %s", name, fromNetmap[name], fromHeadscale[name])
		}
	}
	if len(fromHeadscale) != len(fromNetmap) {
		t.Errorf("headscale gives %d resources, the netmap %d", len(fromHeadscale), len(fromNetmap))
	}
}

func serverIsCutOff(ctx context.Context, t *testing.T, r *rig) {
	stop := r.flow(ctx, t)
	if err := r.parts["east-1"].DisconnectFromNetwork(r.network); err != nil {
		t.Fatal(err)
	}
	await(ctx, t, func() error { return r.onlyHealthy(ctx, "west-1") })
	assertShares(ctx, t, r.Lab, r.url(), shares.Shares{"west-1": 1})

	if err := r.parts["east-1"].ConnectToNetwork(r.network); err != nil {
		t.Fatal(err)
	}
	r.servesBoth(ctx, t)
	// Requests are sent one at a time, and each waits 5 s for its answer: by the
	// time the first one to the lost server has failed, no other may go there.
	tally, err := stop()
	if err != nil {
		t.Fatal(err)
	}
	if tally.Failed > 1 {
		t.Errorf("%d requests failed: %s", tally.Failed, tally.Reasons)
	}
	assertShares(ctx, t, r.Lab, r.url(), onePerRegion, shares.OneStepWrong(onePerRegion)...)
}

// onlyHealthy returns nil if the Envoy finds one endpoint healthy, and no other,
// whether the others are unhealthy or gone.
func (r *rig) onlyHealthy(ctx context.Context, name string) error {
	return onlyHealthyIn(ctx, r.Lab, "west-1", shares.Shares{name: 1})
}

// onlyHealthyIn is the same for any Envoy and endpoints.
func onlyHealthyIn(ctx context.Context, l *lab.Lab, service string, want shares.Shares) error {
	hosts, err := l.Hosts(ctx, service)
	if err != nil {
		return err
	}
	var healthy []string
	for _, host := range hosts {
		if host.Healthy {
			healthy = append(healthy, host.Name)
		}
	}
	if !slices.Equal(healthy, slices.Sorted(maps.Keys(want))) {
		return fmt.Errorf("%s's Envoy has %v", service, hosts)
	}
	return nil
}

// without asks again and again while a fault lasts: the Envoy must keep both
// endpoints, and all requests get their answer.
func (r *rig) without(ctx context.Context, t *testing.T) {
	t.Helper()
	for began := time.Now(); time.Since(began) < faultLasts; {
		if err := r.Serves(ctx, "west-1", weights(onePerRegion)); err != nil {
			t.Error(err)
		}
		assertShares(ctx, t, r.Lab, r.url(), onePerRegion, shares.OneStepWrong(onePerRegion)...)
	}
}

// again waits until the control plane lists devices again, and all is as it was.
func (r *rig) again(ctx context.Context, t *testing.T) {
	t.Helper()
	since := time.Now()
	await(ctx, t, func() error {
		status, err := r.Status(ctx)
		if err == nil && (status.Provider.Stale || status.Provider.LastGood.Before(since)) {
			err = errors.New("the control plane still has no new list: " + status.Provider.Error)
		}
		return err
	})
	r.servesBoth(ctx, t)
}

func headscaleIsStopped(ctx context.Context, t *testing.T, r *rig) {
	stop := r.flow(ctx, t)
	r.signal(t, "headscale", docker.SIGTERM)
	r.ends(ctx, t, "headscale")
	await(ctx, t, func() error {
		status, err := r.Status(ctx)
		if err == nil && !status.Provider.Stale {
			err = fmt.Errorf("the control plane does not say that its list is old: %+v", status.Provider)
		}
		return err
	})
	r.without(ctx, t)
	r.restarts(ctx, t, "headscale")
	r.again(ctx, t)
	assertNoneFailed(t, stop)
}

func headscaleIsPaused(ctx context.Context, t *testing.T, r *rig) {
	stop := r.flow(ctx, t)
	if err := r.pool.Client.PauseContainer(r.parts["headscale"].Container.ID); err != nil {
		t.Fatal(err)
	}
	r.without(ctx, t)
	if err := r.pool.Client.UnpauseContainer(r.parts["headscale"].Container.ID); err != nil {
		t.Fatal(err)
	}
	r.again(ctx, t)
	assertNoneFailed(t, stop)
}

// headscaleForgets gives headscale an empty database: it knows no device and no
// key. Then it gets its own one back.
func headscaleForgets(ctx context.Context, t *testing.T, r *rig) {
	stop := r.flow(ctx, t)
	r.emptyDatabase(ctx, t)
	r.without(ctx, t)
	r.replace(ctx, t, "headscale", nil)
	r.again(ctx, t)
	assertNoneFailed(t, stop)
}

// headscaleRefuses does the same to a control plane that asks the API: its token
// is worth nothing, and it says so.
func headscaleRefuses(ctx context.Context, t *testing.T, r *rig) {
	stop := r.flow(ctx, t)
	r.emptyDatabase(ctx, t)
	await(ctx, t, func() error {
		status, err := r.Status(ctx)
		if err == nil && (!status.Provider.Denied || !status.Provider.Stale) {
			err = fmt.Errorf("the control plane does not say that it is refused: %+v", status.Provider)
		}
		return err
	})
	r.without(ctx, t)
	assertNoneFailed(t, stop)
}

func (r *rig) emptyDatabase(ctx context.Context, t *testing.T) {
	t.Helper()
	r.replace(ctx, t, "headscale", map[string]string{"HEADSCALE_DATABASE_SQLITE_PATH": "/var/lib/headscale/empty.sqlite"})
	if nodes, err := r.Headscale(ctx, "nodes", "list", "--output", "json"); err != nil || strings.Contains(nodes, "west-1") {
		t.Fatalf("headscale's database is not empty: %s (%v)", nodes, err)
	}
}
