package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"text/template"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tailxds/tailxds/internal/envoy"
	"github.com/tailxds/tailxds/internal/load"
)

//go:embed static.yaml.tmpl
var static string

// staticSetup is what an Envoy's configuration is written from that nobody serves.
type staticSetup struct {
	Port, Admin uint16
	Servers     []uint16
	// Same is whether requests are treated as by our configuration; else they are
	// handed on to servers in turn, and nothing more.
	Same bool
}

func staticConfig(s staticSetup) (string, error) {
	t, err := template.New("static").Parse(static)
	if err != nil {
		return "", fmt.Errorf("read the static configuration: %w", err)
	}
	var b strings.Builder
	if err := t.Execute(&b, s); err != nil {
		return "", fmt.Errorf("write the static configuration: %w", err)
	}
	return b.String(), nil
}

// ourConfig is the bootstrap that tailxds prints.
func ourConfig(controlPlane netip.AddrPort, admin uint16) (string, error) {
	text, err := envoy.BootstrapYAML(envoy.BootstrapConfig{
		ControlPlanes: []envoy.HostPort{{Host: controlPlane.Addr().String(), Port: controlPlane.Port()}},
		Node:          "bench", Cluster: "bench", Admin: envoy.HostPort{Host: "127.0.0.1", Port: admin},
	})
	if err != nil {
		return "", fmt.Errorf("make the bootstrap: %w", err)
	}
	return string(text), nil
}

// envoyProcess is a real one, with one worker.
type envoyProcess struct {
	cmd *exec.Cmd
	url string
}

// startEnvoy starts one, whose files begin with name, and waits until it
// answers requests.
func startEnvoy(ctx context.Context, name, config string, port uint16) (*envoyProcess, error) {
	if err := os.WriteFile(name+".yaml", []byte(config), 0o600); err != nil {
		return nil, fmt.Errorf("write Envoy's configuration: %w", err)
	}
	program, err := exec.CommandContext(ctx, "../scripts/offline/envoy").Output()
	if err != nil {
		return nil, fmt.Errorf("find Envoy's program by ../scripts/offline/envoy: %w", err)
	}
	log, err := os.Create(name + ".log")
	if err != nil {
		return nil, fmt.Errorf("make Envoy's log: %w", err)
	}
	defer func() { _ = log.Close() }() // Envoy has it
	e := &envoyProcess{url: fmt.Sprintf("http://127.0.0.1:%d/", port)}
	e.cmd = exec.CommandContext(ctx, strings.TrimSpace(string(program)), "--config-path", name+".yaml",
		"--disable-hot-restart", "--concurrency", "1", "--log-level", "warn")
	e.cmd.Stderr = log
	if err := e.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start Envoy: %w", err)
	}
	if err := e.awaitAnswer(ctx); err != nil {
		e.stop()
		said, _ := os.ReadFile(name + ".log") // better than nothing
		return nil, fmt.Errorf("%w\n%s", err, said)
	}
	return e, nil
}

// awaitAnswer waits until requests are answered.
func (e *envoyProcess) awaitAnswer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		result, err := load.Run(ctx, load.Options{URL: e.url, Requests: 1})
		if err == nil && result.Answered() == 1 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the Envoy at %s does not answer: %v: %w", e.url, result.Failures, errors.Join(err, ctx.Err()))
		}
	}
}

// cpu is what the process has used so far.
func (e *envoyProcess) cpu() (time.Duration, error) {
	// The clock of a process's CPU time, to the nanosecond: /proc counts in ticks
	// of 10 ms, a twentieth of a round. How its number is made of the process's:
	// https://man7.org/linux/man-pages/man3/clock_getcpuclockid.3.html
	const scheduled = 2
	clock := int32(^e.cmd.Process.Pid<<3 | scheduled) //nolint:gosec // a process's number is small
	var t unix.Timespec
	if err := unix.ClockGettime(clock, &t); err != nil {
		return 0, fmt.Errorf("read Envoy's CPU time: %w", err)
	}
	return time.Duration(t.Nano()), nil
}

// spends is the CPU time that the process uses while something is done.
func (e *envoyProcess) spends(do func() error) (time.Duration, error) {
	before, err := e.cpu()
	if err != nil {
		return 0, err
	}
	if err := do(); err != nil {
		return 0, err
	}
	after, err := e.cpu()
	return after - before, err
}

func (e *envoyProcess) stop() {
	_ = e.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	_ = e.cmd.Wait()                          // how it ended is of no interest
}
