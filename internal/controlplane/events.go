package controlplane

import (
	"fmt"
	"slices"
	"time"

	"github.com/tailxds/tailxds/internal/events"
	"github.com/tailxds/tailxds/internal/provider"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/traffic"
	"github.com/tailxds/tailxds/internal/xds"
)

// lastEvents is what the last events were made from.
type lastEvents struct {
	at          time.Time
	situation   events.Snapshot
	publication uint64
}

// recordEvents writes down what is different since the last time. Only the loop calls
// it.
func (c *ControlPlane) recordEvents(now time.Time) {
	p := c.published.Load()
	if p == nil {
		return
	}
	was := c.lastEvents
	c.lastEvents = lastEvents{at: now, publication: c.updateRollout().Publication, situation: c.eventSnapshot(p, *c.policy.Load(), c.tables)}
	if was.at.IsZero() {
		c.events.Add(now, 0, events.Event{Kind: events.Started, Text: fmt.Sprintf("the control plane started; it knows %d devices", len(p.devices))})
		return
	}
	publication := c.lastEvents.publication
	if publication == was.publication {
		publication = 0 // Envoys were sent nothing new
	}
	c.events.Add(now, publication, events.Diff(was.situation, c.lastEvents.situation)...)
}

// updateRollout takes over how far Envoys are with the last publication.
func (c *ControlPlane) updateRollout() xds.Rollout {
	r := c.server.Rollout()
	c.events.SetRollout(r.Publication, events.Rollout{Sent: r.Told, Acked: r.Acked, Rejected: r.Rejected, Millis: float64(r.After) / float64(time.Millisecond)})
	return r
}

// changes are what happened of late, the newest first.
func (c *ControlPlane) changes() []events.Event {
	c.updateRollout()
	return concat(c.events.Recent(time.Now()))
}

// problemsOf are all problems there are now, beside what was measured.
func (c *ControlPlane) problemsOf(p *snapshot, streams []xds.Stream, tables []traffic.Table) []topology.Problem {
	return slices.Concat(p.problems, c.ownProblems(), misplacedEnvoys(streams), crowdedRegions(c.server.CrowdedRegions()), peerProblems(c.peerStates(), c.config.Hostname, time.Now()), traffic.Unhealthy(tables))
}

// envoysOf are the connected Envoys as events show them.
func envoysOf(streams []xds.Stream) []events.Envoy {
	var all []events.Envoy
	for _, s := range streams {
		e := events.Envoy{Device: s.Device, Node: s.Node, Address: s.Address, Since: s.Since, Rejected: make(map[string]string)}
		for name, of := range s.Types {
			if of.Rejected != "" {
				e.Rejected[name] = of.Rejected
			}
		}
		all = append(all, e)
	}
	return all
}

// eventSnapshot is what the journal compares: what is published, by which policy, and
// what was measured.
func (c *ControlPlane) eventSnapshot(p *snapshot, policy policyFile, tables []traffic.Table) events.Snapshot {
	streams := c.server.Streams()
	return events.Snapshot{
		Topology: p.topology, Held: p.held, Degraded: p.degraded, Problems: c.problemsOf(p, streams, tables),
		Envoys: envoysOf(streams), PolicyError: policy.err, Policies: policy.values, Ingress: policy.ingress,
	}
}

// ownProblems are those of the control plane itself: that its state was lost or
// can't be saved, and that it sends its API token unencrypted.
func (c *ControlPlane) ownProblems() []topology.Problem {
	var problems []topology.Problem
	if to := provider.PlainHTTP(c.config.providerConfig(c.log)); to != "" {
		problems = append(problems, topology.Problem{Name: c.config.Hostname, Subject: "api token", Reason: plainHTTP(to)})
	}
	for _, reason := range c.stateTrouble() {
		problems = append(problems, topology.Problem{Name: c.config.Hostname, Subject: "state", Reason: reason})
	}
	return problems
}

// stateTrouble says what is wrong with the saved state.
func (c *ControlPlane) stateTrouble() (reasons []string) {
	if lost := c.lost.Load(); lost != nil {
		reasons = append(reasons, *lost)
	}
	if f := c.stateWriter.writer.Failure(); f.Err != nil {
		reasons = append(reasons, fmt.Sprintf("the state cannot be saved since %s, so a restart would lose recent changes: %v", f.Since.UTC().Format(time.RFC3339), f.Err))
	}
	return reasons
}

// plainHTTP says what is wrong with sending a token over plain HTTP.
func plainHTTP(to string) string {
	return "it is sent to " + to + " unencrypted, so anybody on the way can read it: use https, or an API on this machine"
}
