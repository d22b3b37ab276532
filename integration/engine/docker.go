// Package engine drives the Docker engine for the tests: it names and labels
// what a test process creates, removes all of it, and keeps what explains a
// failure.
//
// It runs the docker command line, as a user would, so that contexts and
// DOCKER_HOST mean what they mean everywhere else.
package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// Docker runs one docker command and returns its trimmed standard output.
func Docker(ctx context.Context, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	command := exec.CommandContext(ctx, "docker", args...)
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("docker %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()+stdout.String()))
	}
	return strings.TrimSpace(stdout.String()), nil
}

// Exec runs a command in a running container.
func Exec(ctx context.Context, container string, command ...string) (string, error) {
	return Docker(ctx, append([]string{"exec", container}, command...)...)
}

// Logs are what a container has written since a time, to either stream.
func Logs(ctx context.Context, container string, since time.Time) (string, error) {
	output, err := exec.CommandContext(ctx, "docker", "logs", "--since", since.Format(time.RFC3339Nano), container).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("docker logs %s: %w: %s", container, err, output)
	}
	return string(output), nil
}

// lines splits a command's output into its lines, none if it is empty.
func lines(output string) []string {
	return strings.FieldsFunc(output, func(r rune) bool { return r == '\n' })
}

// each calls do for every item, goes on after an error, and joins the errors.
func each(items []string, do func(item string) error) error {
	var errs []error
	for _, item := range items {
		errs = append(errs, do(item))
	}
	return errors.Join(errs...)
}
