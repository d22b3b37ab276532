package main

import (
	"fmt"
	"os"
	"reflect"

	"github.com/tailxds/tailxds/internal/xds"
)

// policyFile is the policy in force, the text that it was read from and, if
// its file is bad by now, the error.
type policyFile struct {
	policy xds.Policy
	text   string
	err    string
}

// readPolicy reads the policy file; without one the defaults hold.
func readPolicy(path string) (policyFile, error) {
	if path == "" {
		return policyFile{policy: xds.DefaultPolicy()}, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return policyFile{}, fmt.Errorf("read policy: %w", err)
	}
	return parsePolicy(path, string(text))
}

func parsePolicy(path, text string) (policyFile, error) {
	policy, err := xds.ParsePolicy([]byte(text))
	if err != nil {
		return policyFile{}, fmt.Errorf("%s: %w", path, err)
	}
	return policyFile{policy: policy, text: text}, nil
}

// firstPolicy reads the policy file at a start. Where it is bad, the last good
// one that was kept is served: an Envoy must not lose its routes to a slip.
func (d *daemon) firstPolicy(kept string) error {
	p, err := readPolicy(d.o.Config)
	if err == nil {
		d.policy.Store(&p)
		return nil
	}
	p, keptErr := parsePolicy(d.o.Config, kept)
	if kept == "" || keptErr != nil {
		return err
	}
	d.log.Error("the policy file is bad, the last good policy that was kept is served", "error", err)
	p.err = err.Error()
	d.policy.Store(&p)
	return nil
}

// reloadPolicy reads the policy file again and tells whether another policy
// holds now. A bad edit leaves the last good policy in force.
func (d *daemon) reloadPolicy() bool {
	last := d.policy.Load()
	next, err := readPolicy(d.o.Config)
	switch {
	case err != nil && err.Error() == last.err, err == nil && last.err == "" && reflect.DeepEqual(next.policy, last.policy):
		return false
	case err != nil:
		d.keepPolicy(*last, err)
		return false
	default:
		d.log.Info("policy reloaded", "file", d.o.Config)
		d.policy.Store(&next)
		return true
	}
}

// keepPolicy leaves a policy in force though its file says something else now.
func (d *daemon) keepPolicy(good policyFile, why error) {
	d.log.Error("the policy file is bad, the last good policy stays", "error", why)
	good.err = why.Error()
	d.policy.Store(&good)
}
