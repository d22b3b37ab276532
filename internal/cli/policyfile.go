package cli

import (
	"io"

	"github.com/tailxds/tailxds/internal/policy"
	"github.com/tailxds/tailxds/internal/policyfile"
)

// readPolicyFile reads a policy file; without a path the defaults hold.
func readPolicyFile(path string) (policy.Policy, error) {
	if path == "" {
		return policy.Default(), nil
	}
	text, err := policyfile.ReadText(path)
	if err != nil {
		return policy.Policy{}, err
	}
	return policyfile.Parse(path, string(text))
}

// checkedPolicy reads a policy file, and returns its text too; - is standard input.
func checkedPolicy(path string, stdin io.Reader) (p policy.Policy, text string, err error) {
	read := func() ([]byte, error) { return policyfile.ReadText(path) }
	if path == "-" {
		read = func() ([]byte, error) { return policyfile.ReadTextFrom(stdin) }
	}
	raw, err := read()
	if err != nil {
		return p, "", err
	}
	p, err = policyfile.Parse(path, string(raw))
	return p, string(raw), err
}
