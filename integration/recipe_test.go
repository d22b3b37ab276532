package integration_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tailxds/tailxds/integration/shares"
)

// recipes are the ways to join a server that stand in docs/servers.md.
const recipes = "../deploy/docker"

// compose runs docker compose on a recipe, with settings in place of its .env.
func (w *walk) compose(ctx context.Context, t *testing.T, project string, settings []string, args ...string) {
	t.Helper()
	command := exec.CommandContext(ctx, "docker", append([]string{
		"compose", "--project-name", project, "--env-file", os.DevNull,
		"--file", filepath.Join(recipes, "compose.yaml"), "--file", "testdata/recipe.yaml",
	}, args...)...)
	command.Env = append(os.Environ(), append(settings, "LAB_PROJECT="+w.Project)...)
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("docker compose %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// aServerJoinsByTheRecipe brings a fifth server into the pool as docs/servers.md
// says, and takes it out again: in and out without a request that fails.
func aServerJoinsByTheRecipe(ctx context.Context, t *testing.T, w *walk) {
	const name = "recipe-1"
	project := w.Project + "-recipe"
	settings := []string{
		"SERVER_NAME=" + name, "SERVER_IMAGE=tailxds/server:dev", "REGION=west",
		"CONTROL_PLANE=tsnet-dynamic-eds.tailnet.lab", "TS_LOGIN_SERVER=https://headscale:8443", "TS_AUTHKEY=file:/keys/west",
		"UNHEALTHY_URL=http://127.0.0.1:8080/unhealthy", "DRAIN_SECONDS=5",
	}
	t.Cleanup(func() {
		w.compose(context.WithoutCancel(ctx), t, project, settings, "down", "--volumes", "--timeout", "1")
	})
	four := shares.Shares{"west-1": 1, "west-2": 1, "east-1": 2, "east-2": 2}
	five := shares.Shares{"west-1": 1, "west-2": 1, "east-1": 2, "east-2": 2, name: 1}

	stop, err := w.Flow(ctx, envoy("west-1"))
	if err != nil {
		t.Fatal(err)
	}
	w.compose(ctx, t, project, settings, "up", "--detach", "--wait", "--quiet-pull")
	w.awaitWeights(ctx, t, five, "west-1")
	// Its own Envoy is a way in, too.
	await(ctx, t, func() error {
		_, err := w.Ask(ctx, envoy(name), 1)
		return err
	})
	assertShares(ctx, t, w.Lab, envoy(name), five, shares.OneStepWrong(five)...)

	w.compose(ctx, t, project, settings, "stop")
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
