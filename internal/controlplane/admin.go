package controlplane

import (
	"cmp"
	"context"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tailxds/tailxds/internal/api"
	"github.com/tailxds/tailxds/internal/dashboard"
	"github.com/tailxds/tailxds/internal/input"
)

// adminHandler answers the admin API and the live page on the admin address.
func (c *ControlPlane) adminHandler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), newMetrics(c), newTrafficMetrics(c.traffic))
	return api.Handler(api.Sources{
		Ready:   c.readiness,
		Status:  func() any { return c.status() },
		Traffic: func() any { return c.traffic() },
		History: func(service string) (any, error) { return c.history(service) },
		Explain: func(of, from string) (any, error) { return c.explain(of, from) },
		Doctor:  func(ctx context.Context) any { return c.facts(ctx) },
		Diff:    c.diffs,
		Accept:  func(ctx context.Context, service string) error { return c.accept(ctx, service, localOperator("")) },
		Drain: func(ctx context.Context, device string, long time.Duration, user string) (string, error) {
			return c.drain(ctx, device, long, localOperator(user))
		},
		Restore: func(ctx context.Context, device, user string) (string, error) {
			return c.restore(ctx, device, localOperator(user))
		},
		Hosts:   c.config.AdminHosts,
		Page:    c.dashboard.Handler(adminAuthorizer()),
		Metrics: promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),
	})
}

// adminAuthorizer admits every caller of the admin pages, which have checked the host
// name already. Callers on loopback may operate, as with the
// commands; others may look, as at /status.
func adminAuthorizer() dashboard.Authorizer {
	return dashboard.Authorizer{
		Identify: func(r *http.Request) (dashboard.Viewer, error) {
			from, err := netip.ParseAddrPort(r.RemoteAddr)
			if err == nil && from.Addr().Unmap().IsLoopback() {
				return dashboard.Viewer{Name: localOperator(""), Role: dashboard.RoleOperate}, nil
			}
			return dashboard.Viewer{Name: cmp.Or(from.Addr().Unmap().String(), r.RemoteAddr), Role: dashboard.RoleView}, nil
		},
		AllowsHost: func(context.Context, string) bool { return true },
	}
}

// maxUser is how much of a user's name is taken.
const maxUser = 64

// localOperator names an operator on loopback, where callers are not authenticated, by
// what the command says of its user.
func localOperator(user string) string {
	if text := []rune(input.Printable(user)); len(text) > maxUser {
		user = string(text[:maxUser])
	}
	return cmp.Or(strings.TrimSpace(input.Printable(user)), "the operator") + " at the control plane"
}
