package controlplane

import (
	"fmt"
	"slices"
	"time"

	"github.com/tailxds/tailxds/internal/drain"
	"github.com/tailxds/tailxds/internal/envoy"
	"github.com/tailxds/tailxds/internal/guard"
	"github.com/tailxds/tailxds/internal/policy"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/traffic"
)

// reconcile is the path of a device list to the Envoys. Each step makes a value of
// the ones before; only the last two change anything. The channel gets a value
// once the state is saved.
func (c *ControlPlane) reconcile(now time.Time) <-chan error {
	memory, devices := c.memory.Observe(c.list) // since when each device is offline
	c.memory = memory
	c.pruneDrains(now)
	plan := c.plan(c.planInput(), memory, devices, c.policy.Load().policy, now)
	build, err := c.build(plan.Topology)
	if err == nil {
		err = c.publish(plan, build)
	}
	c.commit(plan, build, err, now)
	return c.stateWriter.save(c.savedState(devices), now)
}

// planInput is what a plan is made from.
type planInput struct {
	list      guard.List
	memory    guard.Memory
	drains    drain.Set
	policy    policyFile // that is in force
	published *snapshot
	tables    []traffic.Table
}

// planInput returns what a plan is made from now. Only the loop calls it; others
// take what it shared last.
func (c *ControlPlane) planInput() planInput {
	policy := *c.policy.Load()
	if policy.unfit != "" && c.good != nil {
		policy = *c.good
	}
	return planInput{c.list, c.memory, c.drains, policy, c.published.Load(), c.tables}
}

// activeDrains returns the drains that are in force, by device.
func (in planInput) activeDrains(now time.Time) map[string]topology.Drain {
	if len(in.drains.Drains(now)) == 0 {
		return nil // without a look at all devices
	}
	return in.drains.Active(in.list.Provider, in.devices(), now)
}

// plan is what may be published, and what the guard must remember then.
type plan struct {
	guard.Decision
	snapshot *snapshot
}

// plan decides what may be published of what the devices say, by a policy. It
// changes nothing.
func (c *ControlPlane) plan(in planInput, memory guard.Memory, devices []topology.Device, policy policy.Policy, now time.Time) plan {
	rules := c.config.rules(now)
	rules.LastGood, rules.Drains = memory.LastGood(), in.activeDrains(now)
	built, problems := topology.Build(devices, rules)
	decision := guard.Decide(memory, guard.Input{
		Now: now, List: in.list, Built: built,
		Connected: c.connected(), StreamsSince: c.streamsSince, Grace: c.config.Rules.OfflineGrace,
		HoldFraction: c.config.HoldFraction, HoldFor: c.config.HoldFor,
	})
	return plan{decision, &snapshot{
		at: now, devices: devices, topology: decision.Topology,
		problems: boundProblems(slices.Concat(problems, decision.Problems, policy.Problems(decision.Topology))),
		held:     decision.Held, degraded: decision.Degraded, drains: in.drains.Drains(now), rules: rules,
	}}
}

// build is the resources of a topology, and the policy that they were built by.
type build struct {
	resources *envoy.Resources
	policy    policyFile
	// unfit is why they are not built by the policy file, but by the last good
	// policy; empty if they are.
	unfit string
}

// build builds the resources of a topology by the policy file. If they can't be
// built by that, the last good policy stays in force: a bad policy delays no device.
func (c *ControlPlane) build(t topology.Topology) (build, error) {
	file := *c.policy.Load()
	resources, err := c.buildBy(t, file.policy)
	if err == nil {
		return build{resources: resources, policy: file}, nil
	}
	if c.good == nil || c.good.text == file.text {
		return build{}, err
	}
	resources, goodErr := c.buildBy(t, c.good.policy)
	if goodErr != nil {
		return build{}, err
	}
	return build{resources, *c.good, fmt.Sprintf("%s: %v", c.config.PolicyFile, err)}, nil
}

// buildBy builds and validates every resource.
func (c *ControlPlane) buildBy(t topology.Topology, p policy.Policy) (*envoy.Resources, error) {
	resources, err := envoy.Build(envoy.Input{
		Topology: t, Policy: p, DefaultService: c.config.Rules.DefaultService, Regions: c.server.Regions(), Envoys: c.server.Envoys(),
	}, c.resources.Load())
	if err != nil {
		return nil, fmt.Errorf("nothing published, the last good resources stay: %w", err)
	}
	return resources, nil
}

// publish serves resources to the Envoys, and lets their devices connect.
func (c *ControlPlane) publish(p plan, b build) error {
	changed, err := c.server.Publish(b.resources)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	c.server.SetAccess(p.Topology.Addresses(), p.Topology.Regions())
	if changed > 0 {
		c.log.Info("published", "services", len(p.Topology.Services), "devices", len(p.Topology.Present()), "resources_changed", changed)
	}
	return nil
}

// commit shares what was published, or why nothing was, records events, and sets
// the timers for when time alone may change something.
func (c *ControlPlane) commit(p plan, b build, err error, now time.Time) {
	c.problemLog.update(p.snapshot.problems, p.Decision)
	c.nextChange.set(p.Topology.Next)
	c.nextList.set(p.NextListAt)
	if c.peers != nil {
		c.peers.Publish(c.drains.Records(), c.server.Connected())
	}
	if err != nil {
		text := err.Error()
		c.publishErr.Store(&text)
		c.log.Error("cannot publish", "error", err)
		return // what was published last is still served
	}
	last := c.resources.Swap(b.resources)
	if checks := b.resources.Checks(); last != nil && last.Checks().Every != checks.Every {
		c.log.Info("another interval of health checks, where the policy leaves it open", "interval", checks.Every, "was", last.Checks().Every, "envoys", checks.Envoys)
	}
	if b.unfit == "" {
		good := b.policy
		good.err, good.unfit = "", ""
		c.good = &good
	}
	c.setPolicyFit(b.unfit)
	c.publishErr.Store(nil)
	c.reports.SetPublished(p.Topology)
	c.memory = p.Memory
	c.published.Store(p.snapshot)
	c.recordEvents(now)
	c.dashboard.Changed()
}

// publishLocalCluster publishes where requests enter, if that has changed.
func (c *ControlPlane) publishLocalCluster() {
	last := c.resources.Load()
	if last == nil {
		return // no Envoy is connected
	}
	next, changed := c.entries.Next(c.reports.Requests(), c.server.EnvoysByRegion(), measureInterval)
	c.entries = next
	if !changed {
		return
	}
	resources, err := last.WithLocalCluster(next.Published)
	if err == nil {
		_, err = c.server.PublishUntracked(resources)
	}
	if err != nil {
		c.log.Error("cannot publish where requests enter", "error", err)
		return
	}
	c.resources.Store(resources)
	c.localCluster.Store(&next.Published)
	c.log.Debug("published where requests enter", "entries", next.Published)
}
