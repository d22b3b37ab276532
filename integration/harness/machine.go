package harness

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/tailxds/tailxds/integration/repository"

	"golang.org/x/sys/unix"
)

const systemd = "/usr/lib/systemd/systemd"

// Machine is a host that is run by a systemd of its own. It has Envoy as
// /usr/bin/envoy and the lab's server as /usr/bin/server; tailxds is there once
// its package is installed. What it is made of is in scripts/machine.
type Machine struct {
	*Host
	process *process
	cgroup  string // its directory
}

// Boot starts systemd on a host. files are what it finds there, text by path,
// under /etc. It skips the test where there is no systemd to start.
func (h *Host) Boot(files map[string]string) *Machine {
	r := h.rig
	r.t.Helper()
	if _, err := os.Stat(systemd); err != nil {
		r.t.Skipf("the units can't be started for real, for there is no systemd here (apt-get install systemd): %v", err)
	}
	installed, mounted := filepath.Join(r.dir, h.Name+"-files"), filepath.Join(r.dir, h.Name+"-root")
	m := &Machine{Host: h}
	err := os.Mkdir(mounted, 0o700)
	if err == nil {
		err = r.install(installed, h.Name, files)
	}
	if err == nil {
		m.cgroup, err = makeCgroup(filepath.Base(filepath.Dir(r.dir)) + "-" + h.Name)
	}
	if err == nil {
		m.process, err = h.startApart(unix.CLONE_NEWPID, false, h.Name+"-systemd", repository.Path("scripts/machine"), h.Name, installed, mounted, m.cgroup)
	}
	if err != nil {
		r.t.Fatalf("boot %s: %v", h.Name, err)
	}
	r.t.Cleanup(m.end)
	r.Await(h.Name+" has booted", func() error {
		_, err := m.Run("systemctl", "is-system-running")
		return err
	})
	return m
}

// install puts programs and files where the machine finds them.
func (r *Rig) install(dir, name string, files map[string]string) error {
	programs := map[string]string{"envoy": r.programs.Envoy, "server": r.programs.Server}
	for _, wanted := range []string{"usr/bin", "etc/systemd/system"} {
		if err := os.MkdirAll(filepath.Join(dir, wanted), 0o755); err != nil {
			return err
		}
	}
	for program, from := range programs {
		to := filepath.Join(dir, "usr/bin", program)
		if os.Link(from, to) == nil {
			continue
		}
		if _, err := repository.Output(exec.CommandContext(r.ctx, "cp", from, to)); err != nil { // on another file system
			return err
		}
	}
	all := map[string]string{
		"/etc/passwd":                "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
		"/etc/group":                 "root:x:0:\nnogroup:x:65534:\n",
		"/etc/nsswitch.conf":         "passwd: files\ngroup: files\nhosts: files\n",
		"/etc/hosts":                 "127.0.0.1 localhost\n",
		"/etc/machine-id":            fmt.Sprintf("%032x\n", r.number()),
		"/etc/hostname":              name + "\n",
		"/etc/systemd/journald.conf": "[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\n",
	}
	maps.Copy(all, files)
	for path, text := range all {
		path = filepath.Join(dir, path)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil {
			err = os.WriteFile(path, []byte(text), 0o644)
		}
		if err != nil {
			return err
		}
	}
	return os.Symlink("/usr/lib/systemd/system/multi-user.target", filepath.Join(dir, "etc/systemd/system/default.target"))
}

// makeCgroup makes a cgroup right below the root that this machine shows.
func makeCgroup(name string) (string, error) {
	mounts, err := os.Open("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	defer func() { _ = mounts.Close() }()
	for lines := bufio.NewScanner(mounts); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 2 && fields[2] == "cgroup2" {
			dir := filepath.Join(fields[1], "tailxds-"+name)
			return dir, os.Mkdir(dir, 0o755)
		}
	}
	return "", errors.New("no file system of type cgroup2 is mounted on this machine, and systemd wants one")
}

// end pulls the plug, if it still runs, and removes its cgroup.
func (m *Machine) end() {
	r := m.rig
	if r.t.Failed() && !m.gone() {
		said, err := m.Run("journalctl", "--no-pager", "--output", "short-precise")
		r.t.Logf("the journal of %s (%v):\n%s", m.Name, err, said)
	}
	if err := m.process.stop(); err != nil {
		r.t.Error(err)
	}
	var all []string
	_ = filepath.WalkDir(m.cgroup, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			all = append(all, path)
		}
		return nil
	})
	for _, dir := range slices.Backward(all) {
		r.Await("the cgroup is empty", func() error { return os.Remove(dir) })
	}
}

func (m *Machine) gone() bool {
	select {
	case <-m.process.done:
		return true
	default:
		return false
	}
}

// Run runs a program on the machine, and returns its standard output. The error of one
// that failed has its standard error.
func (m *Machine) Run(args ...string) (string, error) {
	all := append([]string{"--target", strconv.Itoa(m.process.cmd.Process.Pid), "--all", "--"}, args...)
	return repository.Output(exec.CommandContext(m.rig.ctx, "nsenter", all...))
}

// MustRun is [Machine.Run] of what must not fail.
func (m *Machine) MustRun(args ...string) string {
	m.rig.t.Helper()
	printed, err := m.Run(args...)
	if err != nil {
		m.rig.t.Fatalf("%s on %s: %v\n%s", strings.Join(args, " "), m.Name, err, printed)
	}
	return strings.TrimSpace(printed)
}

// Path is where a file of the machine is found from outside, for as long as it
// runs.
func (m *Machine) Path(path string) string {
	return filepath.Join("/proc", strconv.Itoa(m.process.cmd.Process.Pid), "root", path)
}

// Write writes a file on the machine anew, as an editor does that replaces it.
func (m *Machine) Write(path, text string) {
	m.rig.t.Helper()
	err := os.WriteFile(m.Path(path+".new"), []byte(text), 0o644)
	if err == nil {
		err = os.Rename(m.Path(path+".new"), m.Path(path))
	}
	if err != nil {
		m.rig.t.Fatal(err)
	}
}

// Install installs a package that [Rig.Package] has made, or upgrades to it. What
// was edited of the package's settings stays.
func (m *Machine) Install(deb string) {
	m.rig.t.Helper()
	to := "/root/" + filepath.Base(deb)
	if _, err := repository.Output(exec.CommandContext(m.rig.ctx, "cp", deb, m.Path(to))); err != nil {
		m.rig.t.Fatal(err)
	}
	m.MustRun("dpkg", "--install", to)
}

// PowerOff shuts the machine down as `systemctl poweroff` does, and waits until it
// is off.
func (m *Machine) PowerOff() {
	m.rig.t.Helper()
	m.process.stopped.Store(true)         // it may end
	_, _ = m.Run("systemctl", "poweroff") // which may be killed before it reports success
	m.rig.awaitFor(maxStop, m.Name+" is off", func() error {
		if !m.gone() {
			return errors.New("it runs")
		}
		return nil
	})
}
