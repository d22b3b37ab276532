package integration_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/compose/v5/pkg/api"
	"github.com/testcontainers/testcontainers-go/modules/compose"

	"github.com/tailxds/tailxds/integration/browser"
	"github.com/tailxds/tailxds/integration/engine"
	"github.com/tailxds/tailxds/integration/lab"
	"github.com/tailxds/tailxds/integration/shares"
)

// What the lab's tags promise.
var (
	westOnly    = shares.Shares{"west-1": 1, "west-2": 1}
	bothRegions = shares.Shares{"west-1": 1, "west-2": 1, "east-1": 2, "east-2": 2}
)

// walk is the shipped lab while the walkthrough is replayed on it.
type walk struct {
	*lab.Lab
	stack    compose.ComposeStack
	chromium *browser.Browser
	config   string // the directory of headscale's configuration
	policy   string // the control plane's policy file
}

// TestWalkthrough replays the walkthrough on the shipped lab, step by step. Each
// step begins where the one before it ended, so the first that fails is the last.
func TestWalkthrough(t *testing.T) {
	ctx, w := startWalk(t)
	for _, step := range []struct {
		name string
		run  func(context.Context, *testing.T, *walk)
	}{
		{"a server answers directly", serverAnswersDirectly},
		{"only west is up", onlyWestIsUp},
		{"east joins with weight 2", eastJoins},
		{"regions meet on the tailnet only", regionsMeetOnTheTailnetOnly},
		{"one west server is unhealthy", oneServerIsUnhealthy},
		{"any other Envoy does the same", anyEnvoyDoesTheSame},
		{"this machine reaches the laptop's Envoy", thisMachineReachesTheLaptop},
		{"a server joins by the Docker recipe", aServerJoinsByTheRecipe},
		{"a control plane joins by the Docker recipe", aControlPlaneJoinsByTheRecipe},
		{"a tag changes while requests flow", aTagChanges},
		{"a drained server ends what it has", aDrainedServerEndsWhatItHas},
		{"an operator drains a server", anOperatorDrains},
		{"a server's host is examined", aHostIsExamined},
		{"the tailnet decides who sees the live page", theTailnetDecidesWhoSeesThePage},
		{"the live page shows what the client counted", thePageShowsWhatTheClientCounted},
		{"a grant's weight wins over the tag's", aGrantWins},
		{"nearest crosses regions no more than it must", nearestCrossesNoMoreThanItMust},
		{"local stays at home", localStaysAtHome},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(ctx, t, w) }) {
			t.FailNow()
		}
	}
}

func startWalk(t *testing.T) (context.Context, *walk) {
	t.Helper()
	ctx, l := begin(t, "lab")
	w := &walk{Lab: l, config: headscaleConfig(t), policy: controlPlanePolicy(t)}
	project := loadProject(ctx, t, l.Project)
	l.From, l.Client = "laptop", project.Services["client"].Image
	stack, err := compose.NewDockerComposeWith(compose.StackIdentifier(l.Project), compose.WithStackFiles(composeFile, unpublished))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stack.Close(); err != nil {
			t.Error(err)
		}
	})
	w.stack = stack
	if w.chromium, err = browser.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.chromium.Close(); err != nil {
			t.Error(err)
		}
	})
	return ctx, w
}

// up starts the services whose name keep accepts, and waits until they are
// healthy.
func (w *walk) up(ctx context.Context, t *testing.T, keep func(service string) bool) {
	t.Helper()
	var services []string
	for name, service := range loadProject(ctx, t, w.Project).Services {
		if len(service.Profiles) == 0 && keep(name) {
			services = append(services, name)
		}
	}
	// What runs stays as it is, as with `docker compose up`; by itself the library
	// finds other labels on it than its own, and recreates it.
	err := w.stack.Up(ctx, compose.RunServices(services...), compose.Wait(true), compose.WithRecreate(api.RecreateNever))
	if err != nil {
		t.Fatal(err)
	}
}

func envoy(service string) string { return "http://" + service + ":10000/" }

// weights are the shares as Envoy knows them.
func weights(s shares.Shares) map[string]int {
	found := map[string]int{}
	for host, weight := range s {
		found[host] = int(weight)
	}
	return found
}

// awaitWeights waits until the Envoys know these weights.
func (w *walk) awaitWeights(ctx context.Context, t *testing.T, want shares.Shares, envoys ...string) {
	t.Helper()
	for _, service := range envoys {
		await(ctx, t, func() error { return w.Serves(ctx, service, weights(want)) })
	}
}

func serverAnswersDirectly(ctx context.Context, t *testing.T, w *walk) {
	w.up(ctx, t, func(service string) bool { return !strings.HasPrefix(service, "east-") })
	for _, server := range []string{"west-1", "west-2"} {
		assertShares(ctx, t, w.Lab, "http://"+server+":8080/", shares.Shares{server: 1})
	}
}

func onlyWestIsUp(ctx context.Context, t *testing.T, w *walk) {
	w.awaitWeights(ctx, t, westOnly, "west-1")
	assertShares(ctx, t, w.Lab, envoy("west-1"), westOnly, shares.OneStepWrong(westOnly)...)
}

func eastJoins(ctx context.Context, t *testing.T, w *walk) {
	stop, err := w.Flow(ctx, envoy("west-1"))
	if err != nil {
		t.Fatal(err)
	}
	w.up(ctx, t, func(string) bool { return true })
	w.awaitWeights(ctx, t, bothRegions, "west-1")
	assertNoneFailed(t, stop)
	assertShares(ctx, t, w.Lab, envoy("west-1"), bothRegions, shares.OneStepWrong(bothRegions)...)
}

func oneServerIsUnhealthy(ctx context.Context, t *testing.T, w *walk) {
	// Half of west's hosts are healthy, so west keeps 0.5 x 1.4 of its weight of
	// 2, and all of that is west-2's.
	want := shares.Shares{"west-2": 1.4, "east-1": 2, "east-2": 2}
	unscaled, whole := shares.Shares{"west-2": 1, "east-1": 2, "east-2": 2}, shares.Shares{"west-2": 2, "east-1": 2, "east-2": 2}

	stop, err := w.Flow(ctx, envoy("west-2"))
	if err != nil {
		t.Fatal(err)
	}
	w.tell(ctx, t, "west-1", "unhealthy")
	within5s(ctx, t, func() error { return w.Sees(ctx, "west-2", "west-1", false) })
	assertShares(ctx, t, w.Lab, envoy("west-2"), want, unscaled, whole)

	w.tell(ctx, t, "west-1", "healthy")
	within5s(ctx, t, func() error { return w.Sees(ctx, "west-2", "west-1", true) })
	assertShares(ctx, t, w.Lab, envoy("west-2"), bothRegions, shares.OneStepWrong(bothRegions)...)
	assertNoneFailed(t, stop)
}

// tell sets a server's health, as a user does.
func (w *walk) tell(ctx context.Context, t *testing.T, server, health string) {
	t.Helper()
	tally, err := w.Ask(ctx, "http://"+server+":8080/"+health, 1)
	if err != nil {
		t.Fatal(err)
	}
	if answer := fmt.Sprintf("[%s] Set to %s", server, health); tally.Counts[answer] != 1 {
		t.Fatalf("the server did not answer %q: %v", answer, tally)
	}
}

// within5s is how soon a server must be out, or back.
func within5s(ctx context.Context, t *testing.T, check func() error) {
	t.Helper()
	if err := lab.Await(ctx, 5*time.Second, check); err != nil {
		t.Error(err)
	}
}

func anyEnvoyDoesTheSame(ctx context.Context, t *testing.T, w *walk) {
	others := []string{"west-2", "east-1", "east-2", "laptop"}
	w.awaitWeights(ctx, t, bothRegions, others...)
	for _, service := range others {
		assertShares(ctx, t, w.Lab, envoy(service), bothRegions, shares.OneStepWrong(bothRegions)...)
	}
}

func aTagChanges(ctx context.Context, t *testing.T, w *walk) {
	node, err := w.Node(ctx, "east-1")
	if err != nil {
		t.Fatal(err)
	}
	address := node.Addresses[slices.IndexFunc(node.Addresses, func(a string) bool { return strings.Contains(a, ".") })]
	pattern := fmt.Sprintf(`(?m)^server::%s:8080::weight::3$`, strings.ReplaceAll(address, ".", `\.`))
	stop, err := w.Flow(ctx, envoy("west-1"))
	if err != nil {
		t.Fatal(err)
	}
	seen, err := w.Probe.Watch(ctx, w.Container("west-1"), "http://127.0.0.1:9901/clusters", pattern)
	if err != nil {
		t.Fatal(err)
	}
	changed := time.Now()
	if err := w.SetTags(ctx, node, "tag:region-east", "tag:weight-3"); err != nil {
		t.Fatal(err)
	}
	arrived, err := seen()
	if err != nil {
		t.Fatal(err)
	}
	if took := arrived.Sub(changed); took > 2*time.Second {
		t.Errorf("the new weight took %v to reach Envoy", took)
	} else {
		t.Logf("the new weight reached Envoy %v after the command began", took.Round(time.Millisecond))
	}
	want := shares.Shares{"west-1": 1, "west-2": 1, "east-1": 3, "east-2": 2}
	assertShares(ctx, t, w.Lab, envoy("west-1"), want, shares.OneStepWrong(want)...)

	if err := w.SetTags(ctx, node, node.Tags...); err != nil {
		t.Fatal(err)
	}
	w.awaitWeights(ctx, t, bothRegions, "west-1")
	assertNoneFailed(t, stop)
}

func aGrantWins(ctx context.Context, t *testing.T, w *walk) {
	path := filepath.Join(w.config, "policy.hujson")
	policy, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// The policy has the grant in a comment, for the reader to try.
	const commented = `// {"src": ["tag:region-east"]`
	granted := strings.Replace(string(policy), commented, strings.TrimPrefix(commented, "// "), 1)
	if granted == string(policy) || !strings.Contains(granted, `"weight": 3`) {
		t.Fatalf("%s has no commented grant of weight 3 for east", path)
	}
	w.setPolicy(ctx, t, path, granted)
	want := shares.Shares{"west-1": 1, "west-2": 1, "east-1": 3, "east-2": 3}
	w.awaitWeights(ctx, t, want, "west-1")
	assertShares(ctx, t, w.Lab, envoy("west-1"), want, shares.OneStepWrong(want)...)

	w.setPolicy(ctx, t, path, string(policy))
	w.awaitWeights(ctx, t, bothRegions, "west-1")
}

func (w *walk) setPolicy(ctx context.Context, t *testing.T, path, policy string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(policy), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := engine.Docker(ctx, "kill", "--signal", "HUP", w.Container("headscale")); err != nil {
		t.Fatal(err)
	}
}
