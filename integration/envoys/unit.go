package envoys

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/vishvananda/netns"
)

// Unit runs the commands of a systemd unit on a host, with the unit's own
// environment, as they stand in the file. What systemd does around them, such
// as the sandbox, it does not do.
type Unit struct {
	host    *Host
	name    string
	lines   map[string][]string
	env     map[string]string
	runtime string // what %t is
	process *process
}

// Unit reads a unit and its EnvironmentFile, in which settings replace or add
// lines. The file is taken from where the unit is.
func (h *Host) Unit(path string, settings map[string]string) *Unit {
	h.rig.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		h.rig.t.Fatal(err)
	}
	u := &Unit{host: h, name: filepath.Base(path), lines: unitLines(string(text)), env: make(map[string]string), runtime: filepath.Join(h.rig.dir, h.Name+"-run")}
	for _, of := range u.lines["Environment"] {
		u.set(strings.Fields(of))
	}
	for _, file := range u.lines["EnvironmentFile"] {
		text, err := os.ReadFile(filepath.Join(filepath.Dir(path), filepath.Base(file)))
		if err != nil {
			h.rig.t.Fatal(err)
		}
		u.set(strings.Split(string(text), "\n"))
	}
	maps.Copy(u.env, settings)
	for _, dir := range u.lines["RuntimeDirectory"] {
		if err := os.MkdirAll(filepath.Join(u.runtime, dir), 0o700); err != nil {
			h.rig.t.Fatal(err)
		}
	}
	return u
}

// unitLines are the values of a unit's keys, with continued lines joined.
func unitLines(text string) map[string][]string {
	lines := make(map[string][]string)
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
		key, value, is := strings.Cut(strings.TrimSpace(line), "=")
		if is && !strings.HasPrefix(key, "#") {
			lines[key] = append(lines[key], value)
		}
	}
	return lines
}

func (u *Unit) set(assignments []string) {
	for _, a := range assignments {
		if name, value, is := strings.Cut(strings.TrimSpace(a), "="); is && !strings.HasPrefix(name, "#") {
			u.env[name] = u.expand(value)
		}
	}
}

// expand replaces systemd's specifiers.
func (u *Unit) expand(text string) string {
	return strings.NewReplacer("%t", u.runtime, "%S", filepath.Join(u.host.rig.dir, u.host.Name+"-state"), "%H", u.host.Name).Replace(text)
}

// command is a line of ExecStart or ExecStartPre. A word ${NAME} becomes one
// argument, also where it is empty.
func (u *Unit) command(line string) (program string, args []string) {
	for _, word := range strings.Fields(line) {
		args = append(args, os.Expand(u.expand(word), func(name string) string { return u.env[name] }))
	}
	programs := map[string]string{"/usr/bin/tailxds": u.host.rig.programs.ControlPlane, "/usr/bin/envoy": u.host.rig.programs.Envoy}
	program, known := programs[args[0]]
	if !known {
		u.host.rig.t.Fatalf("%s runs %s, which is none of %v", u.name, args[0], programs)
	}
	return program, args[1:]
}

// Start runs the unit's commands; the last goes on until the test ends.
func (u *Unit) Start() {
	r := u.host.rig
	r.t.Helper()
	for _, line := range u.lines["ExecStartPre"] {
		program, args := u.command(line)
		if err := u.host.finish(r.ctx, u.environ(), program, args...); err != nil {
			r.t.Fatalf("%s: %v", u.name, err)
		}
	}
	program, args := u.command(u.lines["ExecStart"][0])
	var err error
	if u.process, err = u.host.startWith(u.environ(), false, u.name, program, args...); err != nil {
		r.t.Fatal(err)
	}
}

// Said is the end of what the unit's command said.
func (u *Unit) Said() string { return u.process.tail() }

// Stop sends the unit's command SIGTERM, as systemd does, and waits until it
// has ended.
func (u *Unit) Stop() {
	u.host.rig.t.Helper()
	u.process.stopped.Store(true)
	if err := u.process.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		u.host.rig.t.Fatal(err)
	}
	<-u.process.done
}

func (u *Unit) environ() []string {
	var all []string
	for name, value := range u.env {
		all = append(all, name+"="+value)
	}
	return all
}

// finish runs a program on the host to its end.
func (h *Host) finish(ctx context.Context, env []string, program string, args ...string) error {
	return onThread(func() error {
		if err := netns.Set(h.ns); err != nil {
			return fmt.Errorf("enter the namespace of %s: %w", h.Name, err)
		}
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Env = env
		_, err := output(cmd)
		return err
	})
}
