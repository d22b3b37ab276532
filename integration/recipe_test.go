package integration_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tailxds/tailxds/integration/engine"
	"github.com/tailxds/tailxds/integration/shares"
)

// recipes are the ways to join a server that stand in docs/servers.md.
const recipes = "../deploy/docker"

// recipe is one of them on the lab's engine, by files that put it into the lab,
// with settings in place of its .env.
type recipe struct {
	project  string
	files    []string
	settings []string
}

func (r recipe) compose(ctx context.Context, t *testing.T, args ...string) {
	t.Helper()
	all := []string{"compose", "--project-name", r.project, "--env-file", os.DevNull}
	for _, file := range r.files {
		all = append(all, "--file", file)
	}
	command := exec.CommandContext(ctx, "docker", append(all, args...)...)
	command.Env = append(os.Environ(), r.settings...)
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("docker compose %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// downAtTheEnd removes what the recipe has made, when the test ends.
func (r recipe) downAtTheEnd(ctx context.Context, t *testing.T) {
	t.Cleanup(func() { r.compose(context.WithoutCancel(ctx), t, "down", "--volumes", "--timeout", "1") })
}

// aServerJoinsByTheRecipe brings a fifth server into the pool as docs/servers.md
// says, and takes it out again; and once more as a host that has tailscaled and
// the application, and adds the rest by host.yaml: in and out without a request
// that fails.
func aServerJoinsByTheRecipe(ctx context.Context, t *testing.T, w *walk) {
	const name = "recipe-1"
	server := recipe{
		project: w.Project + "-recipe",
		files:   []string{filepath.Join(recipes, "compose.yaml"), "testdata/recipe.yaml"},
		settings: []string{
			"SERVER_NAME=" + name, "SERVER_IMAGE=tailxds/server:dev", "REGION=west", "LAB_PROJECT=" + w.Project,
			"CONTROL_PLANE=tsnet-dynamic-eds.tailnet.lab", "TS_LOGIN_SERVER=https://headscale:8443", "TS_AUTHKEY=file:/keys/west",
			"UNHEALTHY_URL=http://127.0.0.1:8080/unhealthy", "HEALTHY_URL=http://127.0.0.1:8080/healthy", "DRAIN_SECONDS=5",
		},
	}
	server.downAtTheEnd(ctx, t)
	four := shares.Shares{"west-1": 1, "west-2": 1, "east-1": 2, "east-2": 2}
	five := shares.Shares{"west-1": 1, "west-2": 1, "east-1": 2, "east-2": 2, name: 1}

	stop, err := w.Flow(ctx, envoy("west-1"))
	if err != nil {
		t.Fatal(err)
	}
	server.compose(ctx, t, "up", "--detach", "--wait", "--quiet-pull")
	w.awaitWeights(ctx, t, five, "west-1")
	// Its own Envoy is a way in, too, once its checks have found all servers well.
	await(ctx, t, func() error {
		tally, err := w.Ask(ctx, envoy(name), 100)
		if seen := tally.By(shares.Host).Counts; err == nil && len(seen) < len(five) {
			err = fmt.Errorf("the recipe's Envoy asks but %v", seen)
		}
		return err
	})
	assertShares(ctx, t, w.Lab, envoy(name), five, shares.OneStepWrong(five)...)

	server.compose(ctx, t, "stop")

	host := server.project + "-tailscale-1"
	beside := recipe{
		project:  w.Project + "-host",
		files:    []string{filepath.Join(recipes, "host.yaml"), "testdata/host.yaml"},
		settings: append(slices.Clone(server.settings), "LAB_HOST="+host),
	}
	beside.downAtTheEnd(ctx, t)
	server.compose(ctx, t, "up", "--detach", "--wait", "tailscale", "server")
	beside.compose(ctx, t, "up", "--detach", "--wait", "--quiet-pull")
	w.awaitWeights(ctx, t, five, "west-1")
	// In front of users, Tailscale's own proxy comes to that Envoy. Funnel is the
	// same proxy, and the internet is not within reach.
	if _, err := engine.Exec(ctx, host, "tailscale", "--socket=/var/run/tailscale/tailscaled.sock", "serve", "--bg", "--http=8088", "10000"); err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{envoy(name), "http://" + name + ":8088/"} {
		await(ctx, t, func() error {
			_, err := w.Ask(ctx, url, 1)
			return err
		})
	}
	beside.compose(ctx, t, "stop")
	server.compose(ctx, t, "stop")
	node, err := w.Node(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Headscale(ctx, "nodes", "delete", "--force", "--identifier", strconv.Itoa(node.ID)); err != nil {
		t.Fatal(err)
	}
	w.awaitWeights(ctx, t, four, "west-1")
	assertNoneFailed(t, stop)
}

// aControlPlaneJoinsByTheRecipe starts a second control plane as docs/servers.md
// says, which reads the tailnet itself, and restarts it: it is the same device,
// and serves what the lab's serves.
func aControlPlaneJoinsByTheRecipe(ctx context.Context, t *testing.T, w *walk) {
	const name = "recipe-plane"
	plane := recipe{
		project: w.Project + "-plane",
		files:   []string{filepath.Join(recipes, "control-plane.yaml"), "testdata/control-plane.yaml"},
		settings: []string{
			"LAB_PROJECT=" + w.Project, "CONTROL_PLANE_AUTHKEY=file:/etc/tailxds/authkey", "TS_LOGIN_SERVER=https://headscale:8443",
			"CONTROL_PLANE_NAME=" + name, "CONTROL_PLANE_ADMIN=:9090",
		},
	}
	plane.downAtTheEnd(ctx, t)
	plane.compose(ctx, t, "up", "--detach", "--wait", "--quiet-pull")
	before, err := w.Node(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	serves := func() error {
		said, err := engine.Exec(ctx, plane.project+"-control-plane-1", "tailxds", "status", "--exit-code")
		for server := range bothRegions {
			if err == nil && !regexp.MustCompile(server+` .*serving`).MatchString(said) {
				err = fmt.Errorf("%s does not serve by it: %s", server, said)
			}
		}
		return err
	}
	await(ctx, t, serves)
	plane.compose(ctx, t, "restart")
	plane.compose(ctx, t, "up", "--detach", "--wait")
	await(ctx, t, serves)
	after, err := w.Node(ctx, name)
	if err != nil || after.ID != before.ID {
		t.Errorf("after a restart it is device %d (%v), and it was %d", after.ID, err, before.ID)
	}
	plane.compose(ctx, t, "stop")
	if _, err := w.Headscale(ctx, "nodes", "delete", "--force", "--identifier", strconv.Itoa(before.ID)); err != nil {
		t.Fatal(err)
	}
}
