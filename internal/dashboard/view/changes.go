package view

import (
	"fmt"
	"strings"
	"time"

	"github.com/tailxds/tailxds/internal/dashboard"
	"github.com/tailxds/tailxds/internal/events"
	"github.com/tailxds/tailxds/internal/topology"
)

// changes is the timeline: what is the service's, and what is of none.
func (f Input) changes() []dashboard.Change {
	all := []dashboard.Change{}
	for _, c := range f.Changes {
		if len(all) == maxChanges || f.Now.Sub(c.At) > maxChangeAge {
			break
		}
		if c.Service != "" && c.Service != f.Table.Service {
			continue
		}
		change := dashboard.Change{ID: fmt.Sprint(c.ID), At: c.At.UnixMilli(), Kind: iconOf(c), Text: c.Text, By: c.By}
		if strings.Contains(c.Text, "by "+c.By) {
			change.By = "" // it is said already
		}
		if rest, ok := strings.CutPrefix(c.Text, c.Name+" "); ok && c.Name != "" {
			change.Name, change.Text = c.Name, rest
		}
		if c.Rollout != nil {
			change.Effect = c.Rollout.String()
		}
		all = append(all, change)
	}
	return all
}

const (
	// maxChangeAge is the time that the page shows.
	maxChangeAge = 15 * time.Minute
	maxChanges   = 60
)

// iconOf is the sign by which the page shows a change.
func iconOf(c events.Event) string {
	switch c.Kind {
	case events.Added, events.EnvoyConnected:
		return "joined"
	case events.Removed, events.EnvoyDisconnected:
		return "left"
	case events.Weight, events.Held, events.Rejected, events.Policy, events.Accepted:
		return string(c.Kind)
	case events.Drain:
		return "drained"
	case events.Restore:
		return "restored"
	case events.State:
		switch topology.State(c.To) {
		case topology.Serving:
			return "restored"
		case topology.Drained:
			return "drained"
		default:
			return "left"
		}
	case events.Problem:
		return "attention"
	case events.Fixed, events.Recovered, events.Released:
		return "in-sync"
	default:
		return "other"
	}
}
