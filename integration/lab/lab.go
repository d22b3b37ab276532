// Package lab is what tests say and ask of a running lab: requests from the
// laptop, what an Envoy knows, what the control plane serves, tags on headscale.
//
// It finds the parts by their containers' names, so it is the same for the lab
// that compose started and for one put together part by part.
package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/tailxds/tailxds/integration/engine"
	"github.com/tailxds/tailxds/integration/shares"
)

// Lab is one running lab.
type Lab struct {
	Run     *engine.Run
	Probe   *engine.Probe
	Project string // the first part of each container's name
	Client  string // the image of the load client
	From    string // the service from whose network requests are sent
}

// Container is the name of a service's container, as compose gives it.
func (l *Lab) Container(service string) string { return l.Project + "-" + service + "-1" }

// At is the same lab, with requests sent from another service's network.
func (l *Lab) At(service string) *Lab {
	at := *l
	at.From = service
	return &at
}

// Looks are the questions that a failure's bundle should answer.
func Looks() []engine.Look {
	admin := func(file, path string) engine.Look {
		return engine.Look{Name: "-envoy-", File: file, URL: "http://127.0.0.1:9901/" + path}
	}
	status := func(service string) engine.Look {
		return engine.Look{Name: "-" + service + "-1", File: "tailscale-status.json", Command: []string{
			"tailscale", "status", "--json",
		}}
	}
	looks := []engine.Look{
		admin("config_dump.json", "config_dump?include_eds"),
		admin("clusters.txt", "clusters"),
		admin("stats.txt", "stats?usedonly"),
		{Name: "-headscale-1", File: "nodes.json", Command: []string{headscaleBinary, "nodes", "list", "--output", "json"}},
		{Name: "-control-plane-1", File: "status.json", URL: "http://127.0.0.1:9090/status"},
		{Name: "-control-plane-1", File: "metrics.txt", URL: "http://127.0.0.1:9090/metrics"},
	}
	for _, service := range []string{"west-1", "west-2", "east-1", "east-2", "laptop"} {
		looks = append(looks, status(service))
	}
	return looks
}

// Ask sends n requests to a URL, as `docker compose run client` does, and counts
// who answered. Requests that fail are counted, not an error. Flags are the
// client's own.
func (l *Lab) Ask(ctx context.Context, url string, n int, flags ...string) (shares.Tally, error) {
	flow, err := l.flow(ctx, append(flags, url, strconv.Itoa(n))...)
	if err != nil {
		return shares.Tally{}, err
	}
	return flow.wait()
}

// Flow sends requests to a URL until the function it returns is called, which
// counts who answered. It returns once the client runs.
func (l *Lab) Flow(ctx context.Context, url string) (stop func() (shares.Tally, error), err error) {
	// One at a time leaves the machine some room for what is tested.
	return l.until(ctx, "--concurrency=1", url)
}

// FlowAt is a flow of so many requests a second.
func (l *Lab) FlowAt(ctx context.Context, url string, rate int) (stop func() (shares.Tally, error), err error) {
	return l.until(ctx, fmt.Sprintf("--rate=%d", rate), url)
}

func (l *Lab) until(ctx context.Context, flag, url string) (stop func() (shares.Tally, error), err error) {
	flow, err := l.flow(ctx, flag, url, strconv.Itoa(1<<30))
	if err != nil {
		return nil, err
	}
	interrupt := func() (shares.Tally, error) {
		// The client prints what it has counted when it is interrupted.
		if _, err := engine.Docker(ctx, "kill", "--signal", "INT", flow.name); err != nil {
			return shares.Tally{}, errors.Join(err, flow.command.Wait())
		}
		return flow.wait()
	}
	if err := Await(ctx, 30*time.Second, func() error { return l.isRunning(ctx, flow.name) }); err != nil {
		_, stopErr := interrupt()
		return nil, errors.Join(fmt.Errorf("waiting for the client to start: %w", err), stopErr)
	}
	return interrupt, nil
}

func (l *Lab) isRunning(ctx context.Context, container string) error {
	state, err := engine.Docker(ctx, "inspect", "--format", "{{.State.Running}}", container)
	if err == nil && state != "true" {
		err = fmt.Errorf("%s is not running", container)
	}
	return err
}

// flow is a load client at work.
type flow struct {
	name           string
	command        *exec.Cmd
	stdout, stderr bytes.Buffer
}

func (l *Lab) flow(ctx context.Context, arguments ...string) (*flow, error) {
	f := &flow{name: fmt.Sprintf("%s-client-%d", l.Project, time.Now().UnixNano())}
	f.command = exec.CommandContext(ctx, "docker", append([]string{
		"run", "--rm", "--name", f.name, "--label", engine.Label + "=" + l.Project,
		"--network", "container:" + l.Container(l.From), l.Client,
	}, arguments...)...)
	f.command.Stdout, f.command.Stderr = &f.stdout, &f.stderr
	if err := f.command.Start(); err != nil {
		return nil, fmt.Errorf("starting the client: %w", err)
	}
	return f, nil
}

// wait returns the tally. The client's exit status also tells failed requests,
// which its output counts, so only its output matters.
func (f *flow) wait() (shares.Tally, error) {
	runErr := f.command.Wait()
	tally, err := shares.Parse(f.stdout.String())
	if err != nil {
		return shares.Tally{}, fmt.Errorf("client: %w", errors.Join(err, runErr, errors.New(strings.TrimSpace(f.stderr.String()))))
	}
	if tally.Failed > 0 {
		// Why they failed is on standard error only; keep it with the tally.
		tally.Reasons = strings.TrimSpace(f.stderr.String())
	}
	return tally, nil
}

// Await calls check until it returns nil, and gives up after within: a bound
// for failing tests, not a measure of speed. The error is check's last.
func Await(ctx context.Context, within time.Duration, check func() error) error {
	deadline := time.Now().Add(within)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %v: %w", within, err)
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-tick.C:
		}
	}
}
