package cli

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/tailxds/tailxds/internal/envoy"
	"github.com/tailxds/tailxds/internal/policy"
)

// maxPolicyBytes is more than what is parsed, so that the error is the parser's.
const maxPolicyBytes = 1<<20 + 1

// readPolicyFile reads a policy file, and returns its text too; without a path
// the defaults hold.
func readPolicyFile(path string) (p policy.Policy, text string, err error) {
	if path == "" {
		return policy.Default(), "", nil
	}
	f, err := os.Open(path)
	if err != nil {
		return p, "", fmt.Errorf("read policy: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return readPolicy(path, f)
}

// readPolicy reads a policy, and checks that Envoys take what comes of it.
func readPolicy(name string, from io.Reader) (p policy.Policy, text string, err error) {
	raw, err := io.ReadAll(io.LimitReader(from, maxPolicyBytes))
	if err != nil {
		return p, "", fmt.Errorf("read policy: %w", err)
	}
	p, err = policy.Parse(raw)
	if err == nil {
		err = envoy.CheckPolicy(p)
	}
	if err != nil {
		return p, "", fmt.Errorf("%s: %w", name, err)
	}
	return p, string(raw), nil
}

// checkedPolicy reads a policy file; - is standard input.
func checkedPolicy(path string, stdin io.Reader) (policy.Policy, string, error) {
	if path == "-" {
		return readPolicy(path, stdin)
	}
	return readPolicyFile(path)
}
