package main

import (
	"cmp"
	"context"
	"net/http"
	"net/netip"
	"time"

	"github.com/tailxds/tailxds/internal/dashboard"
)

// newPage is the live page of a daemon.
func newPage(d *daemon) *dashboard.Dashboard {
	return dashboard.New(dashboard.Source{
		Look:    func(service string) dashboard.View { return d.pageOf(service).view() },
		Preview: func(a dashboard.Ask) dashboard.Preview { return d.pageOf(a.Service).preview(a) },
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

// adminDoor lets in whoever reaches the admin pages, which have asked already
// whether they answer under the name. By loopback one may operate, as with the
// commands; from elsewhere one may look, as at /status.
func adminDoor() dashboard.Door {
	return dashboard.Door{
		Who: func(r *http.Request) dashboard.Viewer {
			from, err := netip.ParseAddrPort(r.RemoteAddr)
			if err == nil && from.Addr().Unmap().IsLoopback() {
				return dashboard.Viewer{Name: operatorHere(""), Role: dashboard.RoleOperate}
			}
			return dashboard.Viewer{Name: cmp.Or(from.Addr().Unmap().String(), r.RemoteAddr), Role: dashboard.RoleView}
		},
		Answers: func(context.Context, string) bool { return true },
	}
}
