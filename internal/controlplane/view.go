package controlplane

import (
	"cmp"
	"context"
	"time"

	"github.com/tailxds/tailxds/internal/api"
	"github.com/tailxds/tailxds/internal/dashboard"
	"github.com/tailxds/tailxds/internal/dashboard/view"
	"github.com/tailxds/tailxds/internal/traffic"
	"github.com/tailxds/tailxds/internal/xds"
)

// newDashboard makes the live page of a control plane.
func newDashboard(d *ControlPlane) *dashboard.Dashboard {
	return dashboard.New(dashboard.Source{
		Views:   d.viewsOf,
		Preview: func(a dashboard.Action) dashboard.Preview { return d.viewInputOf(a.Service).Preview(a) },
		Accept: func(ctx context.Context, by, service string) error {
			return d.accept(ctx, service, by)
		},
		Drain: func(ctx context.Context, by, device string, during time.Duration) error {
			_, err := d.drain(ctx, device, during, by)
			return err
		},
		Restore: func(ctx context.Context, by, device string) error {
			_, err := d.restore(ctx, device, by)
			return err
		},
	})
}

// viewsOf are the views of some services, gathered once. Names that no service has
// share a page.
func (c *ControlPlane) viewsOf(services []string) []*dashboard.View {
	facts := c.viewInput()
	views := make(map[string]*dashboard.View)
	all := make([]*dashboard.View, 0, len(services))
	for _, service := range services {
		f := c.withService(facts, service)
		if views[f.Table.Service] == nil {
			f.History = c.reports.History(f.Table.Service, f.Now)
			v := f.View()
			views[f.Table.Service] = &v
		}
		all = append(all, views[f.Table.Service])
	}
	return all
}

// viewInputOf gathers what there is to show of a service; of another one, if there is
// none of that name.
func (c *ControlPlane) viewInputOf(service string) view.Input {
	f := c.withService(c.viewInput(), service)
	f.History = c.reports.History(f.Table.Service, f.Now)
	return f
}

// withService turns to a service.
func (c *ControlPlane) withService(f view.Input, service string) view.Input {
	if len(f.Tables) > 0 {
		f.Table = view.TableOf(f.Tables, cmp.Or(service, c.config.Rules.DefaultService))
	}
	return f
}

// viewInput gathers what there is to show of all services.
func (c *ControlPlane) viewInput() view.Input {
	now := time.Now()
	var reported traffic.Input
	var tables []traffic.Table
	if p := c.published.Load(); p != nil {
		reported = c.trafficInput(p, c.reports.View(now))
		tables = traffic.Tables(reported)
	}
	in := viewInput(c.config, now, c.statusWith(tables))
	in.Traffic, in.Tables = reported, tables
	return in
}

// viewInput is what there is to show of a status.
func viewInput(config Config, now time.Time, doc api.Status) view.Input {
	in := view.Input{Now: now, Tailnet: config.Hostname, Table: traffic.Table{Service: config.Rules.DefaultService}}
	if config.Listen != "" {
		in.Tailnet = "no tailnet"
	}
	in.Version, in.Ready, in.Detail, in.PolicyError, in.PublishError = doc.Version, doc.Ready, doc.Detail, doc.Policy.Error, doc.Error
	in.Services, in.Devices, in.Problems, in.Degraded = doc.Services, doc.Devices, doc.Problems, doc.Degraded
	in.Held, in.Drains, in.Changes = doc.Held, doc.Drains, doc.Changes
	if s := doc.Provider; s != nil {
		in.Source = &view.Source{Stale: s.Stale, LastGood: s.LastGood, Error: s.Error, LinkDown: s.LinkDown}
	}
	for _, s := range doc.Envoys {
		in.Envoys = append(in.Envoys, viewEnvoy(s))
	}
	return in
}

// viewEnvoy is a stream as the page shows it.
func viewEnvoy(s xds.Stream) view.Envoy {
	e := view.Envoy{Device: s.Device, Node: s.Node, Region: s.Region, Address: s.Address.Addr(), Since: s.Since, Rejected: make(map[string]string)}
	for kind, state := range s.Types {
		e.Pending = e.Pending || state.Pending
		if state.Rejected != "" {
			e.Rejected[kind] = state.Rejected
		}
	}
	return e
}
