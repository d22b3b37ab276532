package controlplane

import (
	"cmp"
	"context"
	"fmt"
	"reflect"

	"github.com/tailxds/tailxds/internal/envoy"
	"github.com/tailxds/tailxds/internal/policy"
	"github.com/tailxds/tailxds/internal/provider"
	"github.com/tailxds/tailxds/internal/topology"
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
	text, err := readText(path)
	if err != nil {
		return policyFile{}, err
	}
	return parsePolicy(path, string(text))
}

func parsePolicy(path, text string) (policyFile, error) {
	policy, err := policy.Parse([]byte(text))
	if err == nil {
		err = envoy.CheckPolicy(policy)
	}
	if err != nil {
		return policyFile{}, fmt.Errorf("%s: %w", path, err)
	}
	return newPolicyFile(policy, text), nil
}

// firstPolicy reads the policy file at a start. Where it is bad, the last good
// one that was kept is served: an Envoy must not lose its routes to a slip.
func (d *ControlPlane) firstPolicy(kept string) error {
	p, err := loadPolicy(d.config.PolicyFile)
	last, keptErr := parsePolicy(d.config.PolicyFile, kept)
	if kept == "" || keptErr != nil {
		d.policy.Store(&p)
		return err
	}
	d.good = &last
	if err != nil {
		d.log.Error("the policy file is bad, the last good policy that was kept is served", "error", err)
		p = last
		p.err = err.Error()
	}
	d.policy.Store(&p)
	return nil
}

// firstDevices refuses to start without a device file that can be read, as
// [ControlPlane.firstPolicy] does without a policy file: unless there is a list that was
// kept, which serves until the file can be read again.
func (d *ControlPlane) firstDevices(ctx context.Context) error {
	config := d.config.providerConfig(d.log)
	if !config.ReadsFile() || d.list.Provider == provider.File {
		return nil
	}
	if _, err := provider.ReadDevices(config.Devices, config.MaxBytes); err == nil {
		return nil
	}
	src, _, err := provider.Open(provider.Config{Provider: provider.File, Devices: config.Devices, MaxBytes: config.MaxBytes, Log: d.log})
	if err != nil {
		return err
	}
	if _, err := src.List(ctx); err != nil { // it waits for a file that is being written
		return fmt.Errorf("%w: --devices names the device file", err)
	}
	return nil
}

// applyEdit puts an edit of the policy file in force, and tells whether another
// policy holds now. A bad edit leaves the last good policy in force. Only the loop
// calls it.
func (d *ControlPlane) applyEdit(e edit) bool {
	last, next := d.policy.Load(), e.policy
	switch {
	case e.err != nil && e.err.Error() == last.err, e.err == nil && last.err == "" && reflect.DeepEqual(next.policy, last.policy):
		return false
	case e.err != nil:
		d.log.Error("the policy file is bad, the last good policy stays", "error", e.err)
		bad := *last
		bad.err = e.err.Error()
		d.policy.Store(&bad)
		return false
	default:
		d.log.Info("policy reloaded", "file", d.config.PolicyFile)
		d.policy.Store(&next)
		return true
	}
}

// publishResources publishes by the policy of the file. One that can't be published is as
// bad as one that can't be read: the last good one stays, and delays nothing.
func (d *ControlPlane) publishResources(t topology.Topology) error {
	policy := *d.policy.Load()
	err := d.buildAndPublish(t, policy.policy)
	if err == nil {
		good := policy
		good.err, good.unfit = "", ""
		d.good = &good
		d.setPolicyFit(policy, "")
		return nil
	}
	if d.good == nil || d.good.text == policy.text || d.buildAndPublish(t, d.good.policy) != nil {
		return err
	}
	d.setPolicyFit(policy, fmt.Sprintf("%s: %v", d.config.PolicyFile, err))
	return nil
}

// buildAndPublish builds and publishes what is served by a policy. Every resource is
// built and validated before any is published; on an error the last good ones stay.
func (d *ControlPlane) buildAndPublish(t topology.Topology, p policy.Policy) error {
	last := d.resources.Load()
	next, err := envoy.Build(envoy.Input{
		Topology: t, Policy: p, DefaultService: d.config.Rules.DefaultService, Regions: d.server.Regions(), Envoys: d.server.Envoys(),
	}, last)
	if err != nil {
		return fmt.Errorf("nothing published, the last good resources stay: %w", err)
	}
	changed, err := d.server.Publish(next)
	if err != nil {
		return err
	}
	d.resources.Store(next)
	d.server.SetAccess(t.Addresses(), t.Regions())
	if checks := next.Checks(); last != nil && last.Checks().Every != checks.Every {
		d.log.Info("another interval of health checks, where the policy leaves it open", "interval", checks.Every, "was", last.Checks().Every, "envoys", checks.Envoys)
	}
	if changed > 0 {
		d.log.Info("published", "services", len(t.Services), "devices", len(t.Present()), "resources_changed", changed)
	}
	return nil
}

// setPolicyFit notes whether a policy can be published.
func (d *ControlPlane) setPolicyFit(policy policyFile, unfit string) {
	if policy.unfit == unfit {
		return
	}
	if unfit != "" {
		d.log.Error("the policy can't be published, the last good one stays", "error", unfit)
	} else {
		d.log.Info("the policy can be published now", "file", d.config.PolicyFile)
	}
	policy.unfit = unfit
	d.policy.Store(&policy)
}
