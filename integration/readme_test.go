package integration_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/tailxds/tailxds/integration/lab"
	"github.com/tailxds/tailxds/integration/readme"
)

// TestReadme_commands_work runs the README's marked shell blocks, in order and in one shell, on
// a lab of their own; then the tour's on the same lab; then it breaks what the tour
// does not.
func TestReadme_commands_work(t *testing.T) {
	ctx, l := begin(t, "readme")
	l.From, l.Client = "laptop", loadProject(ctx, t, l.Project).Services["client"].Image
	controlPlanePolicy(t)
	t.Setenv("COMPOSE_PROJECT_NAME", l.Project)
	t.Setenv("COMPOSE_PROGRESS", "quiet")
	t.Setenv("COMPOSE_FILE", "compose.yaml:integration/"+unpublished)
	for _, step := range []struct {
		name string
		run  func(context.Context, *testing.T, *lab.Lab)
	}{
		{"README.md", func(ctx context.Context, t *testing.T, l *lab.Lab) { runPage(ctx, t, l, "README.md") }},
		{"a fresh lab", asTagged},
		{"tour.md", func(ctx context.Context, t *testing.T, l *lab.Lab) { runPage(ctx, t, l, "docs/tour.md") }},
		{"a slow path is slow", slowPathIsSlow},
		{"a path is cut and both sides live on", cutPathLeavesBothSides},
		{"the relay falls silent and comes back", relayFallsSilent},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(ctx, t, l) }) {
			t.FailNow()
		}
	}
}

// runPage runs a page's blocks as its reader does.
func runPage(ctx context.Context, t *testing.T, l *lab.Lab, name string) {
	page, err := os.ReadFile("../" + name)
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := readme.Parse(string(page))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if len(blocks) == 0 {
		t.Fatalf("%s marks no shell block to run: put <!-- test: run --> before one", name)
	}
	sh := startShell(ctx, t, "..")
	for _, block := range blocks {
		output, err := sh.run(here(ctx, t, l, block.Script))
		if err != nil {
			t.Fatalf("%s:%d: %v\n%s", name, block.Line, err, block.Script)
		}
		if err := block.Check(output); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// here asks the laptop's Envoy where a test reaches it: it publishes no port.
func here(ctx context.Context, t *testing.T, l *lab.Lab, script string) string {
	t.Helper()
	const published = "curl http://localhost:10000"
	if !strings.Contains(script, published) {
		return script
	}
	// It says who answered; curl's own words are for whom it can't reach.
	return strings.ReplaceAll(script, published, fmt.Sprintf("curl --silent --show-error --fail http://%s:10000", edgeAddress(ctx, t, l, "laptop")))
}

// shell is one bash that runs block after block, as the reader's does.
type shell struct {
	stdin  io.WriteCloser
	stdout *bufio.Reader
}

func startShell(ctx context.Context, t *testing.T, dir string) *shell {
	t.Helper()
	command := exec.CommandContext(ctx, "bash", "-u")
	command.Dir, command.Stderr = dir, os.Stderr // the reader sees it, too
	stdin, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// run has told how the last block ended; there is nothing more to learn.
		_ = stdin.Close()
		_ = command.Wait()
	})
	return &shell{stdin: stdin, stdout: bufio.NewReader(stdout)}
}

// end is what the shell prints after a block, with the block's status.
const end = "--end-of-block--"

// run gives the shell a block, whose commands see no input, and returns what it
// printed. The block ends at its first command that fails.
func (s *shell) run(script string) (string, error) {
	_, err := fmt.Fprintf(s.stdin, "{ set -e; trap 'status=$?; echo; echo %[2]s $status; exit 1' ERR\n%[1]s\n} </dev/null\nset +e; trap - ERR; echo; echo %[2]s 0\n", script, end)
	if err != nil {
		return "", fmt.Errorf("writing to the shell: %w", err)
	}
	var output strings.Builder
	for {
		line, err := s.stdout.ReadString('\n')
		if err != nil {
			return "", fmt.Errorf("the shell has ended: %w: %s", err, &output)
		}
		if status, ended := strings.CutPrefix(line, end+" "); ended {
			if code, err := strconv.Atoi(strings.TrimSpace(status)); err != nil || code != 0 {
				return "", fmt.Errorf("a command ended with status %s: %s", strings.TrimSpace(status), &output)
			}
			return output.String(), nil
		}
		output.WriteString(line)
	}
}

func TestShell_failure_stops(t *testing.T) {
	sh := startShell(t.Context(), t, ".")
	if output, err := sh.run("there=here\ncat"); err != nil || strings.TrimSpace(output) != "" {
		t.Fatalf("got %q, %v", output, err)
	}
	if output, err := sh.run("echo is $there"); err != nil || strings.TrimSpace(output) != "is here" {
		t.Fatalf("a block does not see what the one before it set: %q, %v", output, err)
	}
	output, err := sh.run("echo before\nfalse\necho after")
	if err == nil || strings.Contains(output+err.Error(), "after") || !strings.Contains(err.Error(), "before") {
		t.Fatalf("got %q, %v", output, err)
	}
}
