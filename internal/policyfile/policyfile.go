// Package policyfile reads policy files, for the control plane and for the commands
// that check one.
package policyfile

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/tailxds/tailxds/internal/envoy"
	"github.com/tailxds/tailxds/internal/policy"
)

// MaxBytes is how much of a file is read. It is more than what is parsed, so that the
// error is the parser's.
const MaxBytes = 1<<20 + 1

// Parse parses the text of a policy file, and checks that Envoys take what comes of it.
// Errors begin with the file's name.
func Parse(name, text string) (policy.Policy, error) {
	p, err := policy.Parse([]byte(text))
	if err == nil {
		err = envoy.CheckPolicy(p)
	}
	if err != nil {
		return policy.Policy{}, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

// ReadText reads the text of a policy file, or as much of it as shows that it is too
// large.
func ReadText(path string) (text []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return ReadTextFrom(f)
}

// ReadTextFrom is [ReadText] of what is open already, such as standard input.
func ReadTextFrom(from io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(from, MaxBytes))
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	return text, nil
}
