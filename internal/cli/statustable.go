package cli

import (
	"fmt"
	"io"
	"net/netip"
	"text/tabwriter"
	"time"

	"github.com/tailxds/tailxds/internal/api"
	"github.com/tailxds/tailxds/internal/drain"
	"github.com/tailxds/tailxds/internal/events"
	"github.com/tailxds/tailxds/internal/topology"
)

// printStatus writes a status for people.
func printStatus(out io.Writer, doc api.Status) error {
	t := table{tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}
	for _, d := range doc.Degraded {
		t.row("DEGRADED " + d)
	}
	t.row(doc.Detail)
	if line := summary(doc, time.Now()); line != "" {
		t.row(line)
	}
	if doc.Error != "" {
		t.row("publish error: " + doc.Error)
	}
	if doc.Policy.Error != "" {
		t.row("policy error: " + doc.Policy.Error)
	}
	t.row()
	t.row("SERVICE", "PRIORITY", "REGION", "ZONE", "DEVICE", "ID", "ADDRESS", "WEIGHT", "SHARE", "STATE")
	shares := sharesByEndpoint(doc)
	for _, s := range doc.Services {
		for _, l := range s.Localities {
			for _, e := range l.Endpoints {
				t.endpoint(s.Name, l.Priority, e, shares)
			}
		}
		for _, e := range s.Idle {
			t.endpoint(s.Name, e.Priority, e, shares)
		}
	}
	if len(doc.Held) > 0 {
		t.row()
		t.row("HELD IN", "DEVICE", "ADDRESS", "LISTED AS")
		for _, h := range doc.Held {
			for _, e := range h.Endpoints {
				t.row(h.Service, e.Name, e.Address, e.Listed)
			}
		}
	}
	if len(doc.Drains) > 0 {
		t.row()
		t.row("DRAINED", "ID", "BY", "SINCE", "UNTIL")
		for _, w := range doc.Drains {
			t.row(w.Name, w.Device, w.By, w.At.UTC().Format(time.DateTime), drainEnd(w))
		}
	}
	t.row()
	t.row("ENVOY", "NODE", "ADDRESS", "SINCE", "STATE")
	for _, e := range doc.Envoys {
		t.row(e.Device, e.Node, e.Address.Addr(), time.Since(e.Since).Round(time.Second), api.EnvoyState(e))
	}
	if c := doc.HealthChecks; c != nil && c.Interval != "1s" {
		t.row()
		t.row(fmt.Sprintf("health checks: each Envoy checks every %s, for %d Envoys", c.Interval, c.Envoys))
	}
	if len(doc.Problems) > 0 {
		t.row()
		t.row("PROBLEM ON", "SUBJECT", "REASON")
		for _, p := range doc.Problems {
			t.row(p.Name, p.Subject, p.Reason)
		}
	}
	t.changed(doc.Changes)
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print status: %w", err)
	}
	return nil
}

// lastChanges is how many changes a status shows; -o json has all.
const lastChanges = 8

// changed shows the last changes, the newest first.
func (t table) changed(changes []events.Event) {
	if len(changes) == 0 {
		return
	}
	t.row()
	t.row("CHANGED", "WHAT", "BY", "REACHED")
	for _, c := range changes[:min(lastChanges, len(changes))] {
		reached := "-"
		if c.Rollout != nil {
			reached = c.Rollout.String()
		}
		t.row(c.At.UTC().Format(time.TimeOnly), c.Text, dash(c.By), reached)
	}
}

// placeOf identifies an endpoint's share.
type placeOf struct {
	service, device string
	address         netip.AddrPort
}

func sharesByEndpoint(s api.Status) map[placeOf]api.EndpointShare {
	all := make(map[placeOf]api.EndpointShare, len(s.Shares))
	for _, of := range s.Shares {
		all[placeOf{of.Service, of.Device, of.Address}] = of
	}
	return all
}

// endpoint is a row. One whose own Envoy is not connected serves, and is served
// to others, but no caller can enter at it.
func (t table) endpoint(service string, priority uint32, e topology.Endpoint, shares map[placeOf]api.EndpointShare) {
	share, state := "-", string(e.State)
	if of, ok := shares[placeOf{service, e.Device, e.Address}]; ok {
		share = fmt.Sprintf("%.1f%%", 100*of.Expected)
		if !of.Envoy {
			state += ", no Envoy"
		}
	}
	t.row(service, priority, dash(e.Region), dash(e.Zone), e.Name, e.Device, e.Address, e.Weight, share, state)
}

// summary is all in a line: "2 services, 7 of 8 endpoints serving, 9 Envoys; the
// list of netmap is 3s old". It is empty before there is a list.
func summary(s api.Status, now time.Time) string {
	if s.Provider == nil || s.At == nil {
		return ""
	}
	serving, all := 0, 0
	for _, of := range s.Services {
		serving += len(of.Serving())
		all += len(of.Serving()) + len(of.Idle)
	}
	line := fmt.Sprintf("%s, %d of %s serving, %s", plural(len(s.Services), "service"), serving, plural(all, "endpoint"), plural(len(s.Envoys), "Envoy"))
	if !s.Provider.LastGood.IsZero() {
		line += fmt.Sprintf("; the list of %s is %s old", s.Provider.Provider, now.Sub(s.Provider.LastGood).Round(time.Second))
	}
	return line
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// drainEnd is when a drain ends by itself.
func drainEnd(w drain.Record) string {
	if w.Until.IsZero() {
		return "`tailxds restore " + w.Name + "`"
	}
	return w.Until.UTC().Format(time.DateTime + " MST")
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
