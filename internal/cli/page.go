package cli

import (
	"cmp"
	"context"
	"net/http"
	"net/netip"
	"time"

	"github.com/tailxds/tailxds/internal/dashboard"
	"github.com/tailxds/tailxds/internal/dashboard/view"
	"github.com/tailxds/tailxds/internal/traffic"
	"github.com/tailxds/tailxds/internal/xds"
)

// newPage is the live page of a daemon.
func newPage(d *daemon) *dashboard.Dashboard {
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
func (d *daemon) pagesOf(services []string) []*dashboard.View {
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
func (d *daemon) pageOf(service string) view.Input {
	f := d.factsOf(d.pageFacts(), service)
	f.History = d.reports.History(f.Table.Service, f.Now)
	return f
}

// factsOf turns to a service.
func (d *daemon) factsOf(f view.Input, service string) view.Input {
	if len(f.Tables) > 0 {
		f.Table = view.TableOf(f.Tables, cmp.Or(service, d.o.DefaultService))
	}
	return f
}

// pageFacts gathers what there is to show of all services.
func (d *daemon) pageFacts() view.Input {
	f := view.Input{Now: time.Now(), Tailnet: d.o.Hostname, Table: traffic.Table{Service: d.o.DefaultService}}
	if d.o.Listen != "" {
		f.Tailnet = "no tailnet"
	}
	if p := d.published.Load(); p != nil && d.started() {
		f.Traffic = d.trafficCase(p, d.reports.View(f.Now))
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

// adminDoor lets in whoever reaches the admin pages, which have asked already
// whether they answer under the name. By loopback one may operate, as with the
// commands; from elsewhere one may look, as at /status.
func adminDoor() dashboard.Authorizer {
	return dashboard.Authorizer{
		Who: func(r *http.Request) (dashboard.Viewer, error) {
			from, err := netip.ParseAddrPort(r.RemoteAddr)
			if err == nil && from.Addr().Unmap().IsLoopback() {
				return dashboard.Viewer{Name: operatorHere(""), Role: dashboard.RoleOperate}, nil
			}
			return dashboard.Viewer{Name: cmp.Or(from.Addr().Unmap().String(), r.RemoteAddr), Role: dashboard.RoleView}, nil
		},
		Answers: func(context.Context, string) bool { return true },
	}
}
