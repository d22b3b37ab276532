package controlplane

import (
	"cmp"
	"reflect"

	"github.com/tailxds/tailxds/internal/policy"
	"github.com/tailxds/tailxds/internal/policyfile"
)

// policyFile is the last policy that could be read, the text that it was read
// from and, if its file is bad by now, the error. Unfit is why it can't be
// published, while another is.
type policyFile struct {
	policy     policy.Policy
	text       string
	values     map[string]map[string]string // what people read of it: see [policy.Policy.Values]
	ingress    map[string]string
	err, unfit string
}

func newPolicyFile(policy policy.Policy, text string) policyFile {
	return policyFile{policy: policy, text: text, values: policy.Values(), ingress: policy.Ingress.Values()}
}

// wrong is why the policy in force is not what its file says; empty if it is.
func (p policyFile) wrong() string { return cmp.Or(p.err, p.unfit) }

// loadPolicy reads the policy file; without one the defaults hold.
func loadPolicy(path string) (policyFile, error) {
	if path == "" {
		return newPolicyFile(policy.Default(), ""), nil
	}
	text, err := policyfile.ReadText(path)
	if err != nil {
		return policyFile{}, err
	}
	return parsePolicy(path, string(text))
}

func parsePolicy(path, text string) (policyFile, error) {
	policy, err := policyfile.Parse(path, text)
	if err != nil {
		return policyFile{}, err
	}
	return newPolicyFile(policy, text), nil
}

// applyEdit puts an edit of the policy file in force, and reports whether another
// policy is in force now. A bad edit leaves the last good policy in force. Only the loop
// calls it.
func (c *ControlPlane) applyEdit(e edit) bool {
	last, next := c.policy.Load(), e.policy
	switch {
	case e.err != nil && e.err.Error() == last.err, e.err == nil && last.err == "" && reflect.DeepEqual(next.policy, last.policy):
		return false
	case e.err != nil:
		c.log.Error("the policy file is bad, the last good policy stays", "error", e.err)
		bad := *last
		bad.err = e.err.Error()
		c.policy.Store(&bad)
		return false
	default:
		c.log.Info("policy reloaded", "file", c.config.PolicyFile)
		c.policy.Store(&next)
		return true
	}
}

// setPolicyFit notes why the policy file can't be published; empty if it can.
func (c *ControlPlane) setPolicyFit(unfit string) {
	policy := *c.policy.Load()
	if policy.unfit == unfit {
		return
	}
	if unfit != "" {
		c.log.Error("the policy can't be published, the last good one stays", "error", unfit)
	} else {
		c.log.Info("the policy can be published now", "file", c.config.PolicyFile)
	}
	policy.unfit = unfit
	c.policy.Store(&policy)
}
