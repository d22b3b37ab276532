package controlplane

import (
	"cmp"
	"context"
	"time"

	"github.com/tailxds/tailxds/internal/dashboard"
	"github.com/tailxds/tailxds/internal/dashboard/view"
	"github.com/tailxds/tailxds/internal/traffic"
	"github.com/tailxds/tailxds/internal/xds"
)

// newPage is the live page of a daemon.
func newPage(d *ControlPlane) *dashboard.Dashboard {
	return dashboard.New(dashboard.Source{
		Look:    d.pagesOf,
		Preview: func(a dashboard.Action) dashboard.Preview { return d.pageOf(a.Service).Preview(a) },
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

// pagesOf are the pages of some services, gathered once. Names that no service has
// share a page.
func (d *ControlPlane) pagesOf(services []string) []*dashboard.View {
	facts := d.pageFacts()
	views := make(map[string]*dashboard.View)
	all := make([]*dashboard.View, 0, len(services))
	for _, service := range services {
		f := d.factsOf(facts, service)
		if views[f.Table.Service] == nil {
			f.History = d.reports.History(f.Table.Service, f.Now)
			v := f.View()
			views[f.Table.Service] = &v
		}
		all = append(all, views[f.Table.Service])
	}
	return all
}

// pageOf gathers what there is to show of a service; of another one, if there is
// none of that name.
func (d *ControlPlane) pageOf(service string) view.Input {
	f := d.factsOf(d.pageFacts(), service)
	f.History = d.reports.History(f.Table.Service, f.Now)
	return f
}

// factsOf turns to a service.
func (d *ControlPlane) factsOf(f view.Input, service string) view.Input {
	if len(f.Tables) > 0 {
		f.Table = view.TableOf(f.Tables, cmp.Or(service, d.config.Rules.DefaultService))
	}
	return f
}

// pageFacts gathers what there is to show of all services.
func (d *ControlPlane) pageFacts() view.Input {
	f := view.Input{Now: time.Now(), Tailnet: d.config.Hostname, Table: traffic.Table{Service: d.config.Rules.DefaultService}}
	if d.config.Listen != "" {
		f.Tailnet = "no tailnet"
	}
	if p := d.published.Load(); p != nil && d.started() {
		f.Traffic = d.trafficInput(p, d.reports.View(f.Now))
		f.Tables = traffic.Tables(f.Traffic)
	}
	doc := d.statusBeside(f.Tables)
	f.Version, f.Ready, f.Detail, f.PolicyError, f.PublishError = doc.Version, doc.Ready, doc.Detail, doc.Policy.Error, doc.Error
	f.Services, f.Devices, f.Problems, f.Degraded = doc.Services, doc.Devices, doc.Problems, doc.Degraded
	f.Held, f.Drains, f.Changes = doc.Held, doc.Drains, doc.Changes
	if s := doc.Provider; s != nil {
		f.Source = &view.Source{Stale: s.Stale, LastGood: s.LastGood, Error: s.Error, LinkDown: s.LinkDown}
	}
	for _, s := range doc.Envoys {
		f.Envoys = append(f.Envoys, pageEnvoy(s))
	}
	return f
}

// pageEnvoy is a stream as the page tells of it.
func pageEnvoy(s xds.Stream) view.Envoy {
	e := view.Envoy{Device: s.Device, Node: s.Node, Region: s.Region, Address: s.Address.Addr(), Since: s.Since, Rejected: make(map[string]string)}
	for kind, state := range s.Types {
		e.Pending = e.Pending || state.Pending
		if state.Rejected != "" {
			e.Rejected[kind] = state.Rejected
		}
	}
	return e
}
