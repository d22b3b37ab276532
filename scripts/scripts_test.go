// Package scripts_test holds that the scripts end in one line that says what is
// missing and how to mend it, on machines that lack this or that.
package scripts_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// ordinary are the programs that every machine has. All others a case must give.
var ordinary = strings.Fields("bash sh env dirname basename cat cp cut sed awk grep sort head tail tr wc mktemp rm mkdir mv ln ls sleep kill sha256sum shasum touch chmod setsid")

// machine makes a directory for PATH with the ordinary programs and the given
// ones, each a shell script.
func machine(t *testing.T, programs map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range ordinary {
		path, err := exec.LookPath(name)
		if _, given := programs[name]; given || err != nil {
			continue // err: such as shasum where there is sha256sum
		}
		if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if _, given := programs["uname"]; !given {
		writeNew(t, filepath.Join(dir, "uname"), "#!/usr/bin/env bash\n[[ $* == -m ]] && echo x86_64 || echo Linux\n")
	}
	for name, script := range programs {
		writeNew(t, filepath.Join(dir, name), "#!/usr/bin/env bash\n"+script+"\n")
	}
	return dir
}

// writeNew never writes through a link to the machine's own program.
func writeNew(t *testing.T, path, script string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString(script); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}

const (
	root     = "echo 0"
	noEngine = "exit 1"
	// An engine without images, and a registry that does not answer.
	bareEngine = `case "$*" in info | version*) echo amd64 ;; *) exit 1 ;; esac`
	oldCompose = `case "$*" in info) ;; "compose version --short") echo 2.10.2 ;; *) exit 1 ;; esac`
	// A lab of one server.
	someLab = `case "$*" in *"--quiet control-plane") echo 0123 ;; *--format*) echo west-1-server running ;; *) ;; esac`
	// All images but Envoy's are there.
	noEnvoy = `case "$*" in *manifest*) exit 1 ;; version*) echo amd64 ;; *envoy*) exit 1 ;; *) ;; esac`
)

func TestScripts_missingPrerequisite_saysWhatToDo(t *testing.T) {
	for _, c := range []struct {
		name     string
		script   string
		args     []string
		env      []string
		programs map[string]string
		want     string
	}{
		{
			name: "the engine of DOCKER_HOST is away", script: "engine",
			env: []string{"DOCKER_HOST=tcp://192.0.2.1:1"}, programs: map[string]string{"docker": noEngine, "id": root},
			want: "no Docker engine answers at DOCKER_HOST=tcp://192.0.2.1:1: start it, or unset DOCKER_HOST",
		},
		{
			name: "no engine on a Mac", script: "engine", programs: map[string]string{"uname": "echo Darwin", "id": "echo 501"},
			want: "start Docker Desktop",
		},
		{
			name: "no engine and no root", script: "engine", programs: map[string]string{"id": "echo 1000"},
			want: "sudo ", // to start it, or to be let at the one that runs
		},
		{
			name: "no engine and none may be installed", script: "engine",
			env: []string{"LAB_NO_INSTALL=1"}, programs: map[string]string{"docker": noEngine, "id": root},
			want: "LAB_NO_INSTALL=1 forbids to install or start one: start one, or unset LAB_NO_INSTALL",
		},
		{
			name: "no engine and no Debian", script: "engine", programs: map[string]string{"id": root},
			want: "this is not Debian: install one",
		},
		{
			name: "apt-get fails", script: "engine", programs: map[string]string{"id": root, "apt-get": "exit 100"},
			want: "is the network there?",
		},
		{
			name: "the engine dies at once", script: "engine",
			programs: map[string]string{
				"id": root, "docker": noEngine, "systemctl": "exit 1",
				"dockerd": "echo level=fatal msg=boom >&2; exit 1",
			},
			want: "the Docker engine did not start",
		},
		{
			name: "no docker command", script: "offline/compose-plugin", want: "install the Docker CLI",
		},
		{
			name: "no compose and no Go", script: "offline/compose-plugin", programs: map[string]string{"docker": noEngine},
			want: "docker compose must be built here (it is missing or too old), and there is no Go: install Go 1.",
		},
		{
			name: "no compose and none may be installed", script: "offline/compose-plugin",
			env: []string{"LAB_NO_INSTALL=1"}, programs: map[string]string{"docker": oldCompose},
			want: "docker compose 2.10.2 and at least 2.24.0 is needed, and LAB_NO_INSTALL=1 forbids to build it",
		},
		{
			name: "no registry and no Go", script: "images", programs: map[string]string{"docker": bareEngine},
			want: "headscale must be built here (no image registry answers), and there is no Go: install Go 1.",
		},
		{
			name: "no registry and an old Go", script: "images",
			programs: map[string]string{"docker": bareEngine, "go": "exit 1"},
			want:     "the Go here is older than 1.",
		},
		{
			name: "no registry and no pip", script: "images", programs: map[string]string{"docker": noEnvoy, "go": ""},
			want: "there is no pip: apt-get install python3-pip",
		},
		{
			name: "the engine goes away", script: "images", programs: map[string]string{"docker": noEngine},
			want: "the Docker engine is away: run scripts/engine",
		},
		{
			name: "taking down without docker", script: "lab", args: []string{"down"},
			want: "there is no docker command, so there is no lab",
		},
		{
			name: "taking down without an engine", script: "lab", args: []string{"down"}, programs: map[string]string{"docker": noEngine},
			want: "start the engine, then run this again",
		},
		{
			name: "breaking without a lab", script: "lab", args: []string{"break", "headscale"}, programs: map[string]string{"docker": "exit 0"},
			want: "there is no lab yet: make lab",
		},
		{
			name: "mending without an engine", script: "lab", args: []string{"mend"}, programs: map[string]string{"docker": noEngine},
			want: "so there is no lab: make lab",
		},
		{
			name: "breaking what can't be", script: "lab", args: []string{"break", "path", "west"}, programs: map[string]string{"docker": someLab},
			want: "scripts/lab break lists what can",
		},
		{
			name: "breaking an unknown region", script: "lab", args: []string{"break", "region", "north"}, programs: map[string]string{"docker": someLab},
			want: "there is no region north; there are west and east",
		},
		{
			name: "breaking an unknown server", script: "lab", args: []string{"break", "server", "west-3"}, programs: map[string]string{"docker": someLab},
			want: "no server west-3 runs; these do: west-1",
		},
		{
			name: "an unknown mode", script: "lab", args: []string{"locality", "closest"}, programs: map[string]string{"docker": someLab},
			want: "there are weighted, exact, nearest and local",
		},
		{
			name: "systemd outside of namespaces", script: "machine", args: []string{"name", "files", "root", "cgroup"},
			want: "systemd may only start as PID 1 of its own PID namespace",
		},
		{name: "an unknown command", script: "lab", args: []string{"sideways"}, want: "usage: scripts/lab up | down"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "./"+c.script, c.args...)
			home := t.TempDir()
			cmd.Env = append(c.env, "PATH="+machine(t, c.programs), "HOME="+home, "LAB_ENGINE_LOG="+filepath.Join(home, "log"))
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			var exit *exec.ExitError
			if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Fatalf("%s ended with %v, want exit status 1\n%s", c.script, err, stderr.String())
			}
			lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
			last := lines[len(lines)-1]
			if !strings.HasPrefix(last, "error: ") || !strings.Contains(last, c.want) || strings.Count(stderr.String(), "error: ") != 1 {
				t.Errorf("%s said\n%swant one last line with %q", c.script, stderr.String(), c.want)
			}
		})
	}
}
