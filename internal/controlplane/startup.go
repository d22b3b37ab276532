package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tailxds/tailxds/internal/api"
	"github.com/tailxds/tailxds/internal/dashboard"
	"github.com/tailxds/tailxds/internal/guard"
	"github.com/tailxds/tailxds/internal/version"
)

// startup answers the admin address until the tailnet is joined.
type startup struct {
	config      Config
	began       time.Time
	policyError string
	stateLost   bool
	reason      atomic.Pointer[string] // why the tailnet is not joined yet
	dashboard   *dashboard.Dashboard
}

func newStartup(config Config, b beginning) *startup {
	s := &startup{config: config, began: time.Now(), policyError: b.policy.wrong(), stateLost: b.lost != ""}
	notYet := func() error { return s.notYet() }
	s.dashboard = dashboard.New(dashboard.Source{
		Views: func(services []string) []*dashboard.View {
			v := viewInput(config, time.Now(), s.status()).View()
			return slices.Repeat([]*dashboard.View{&v}, len(services))
		},
		Preview: func(a dashboard.Action) dashboard.Preview {
			return viewInput(config, time.Now(), s.status()).Preview(a)
		},
		Accept:  func(context.Context, string, string) error { return notYet() },
		Drain:   func(context.Context, string, string, time.Duration) error { return notYet() },
		Restore: func(context.Context, string, string) error { return notYet() },
	})
	return s
}

// run shows the live page until ctx ends or stop is called, which ends the streams of
// open pages, so that they connect anew.
func (s *startup) run(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.dashboard.Run(ctx) // what it shows is always written
	}()
	return func() { cancel(); <-done }
}

// setReason takes why the tailnet is not joined yet.
func (s *startup) setReason(reason string) { s.reason.Store(&reason) }

func (s *startup) readiness() (ready bool, detail string) {
	detail = "not ready: joining the tailnet"
	if reason := s.reason.Load(); reason != nil {
		detail += ": " + *reason
	}
	return false, detail
}

func (s *startup) notYet() error {
	_, detail := s.readiness()
	return fmt.Errorf("%w: it is %s", errNotYet, detail)
}

func (s *startup) status() api.Status {
	doc := emptyStatus(s.config, s.policyError)
	doc.Ready, doc.Detail = s.readiness()
	return doc
}

// handler answers the admin API with what is known before the tailnet is joined.
func (s *startup) handler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), startupMetrics{s})
	failing := func(why string) error {
		_, detail := s.readiness()
		return errors.New(why + ": " + detail)
	}
	return api.Handler(api.Sources{
		Ready:   s.readiness,
		Status:  func() any { return s.status() },
		Traffic: func() any { return emptyTraffic(time.Now()) },
		History: func(service string) (any, error) { return nil, fmt.Errorf("there is no service %q", service) },
		Explain: func(string, string) (any, error) { return nil, failing("nothing can be explained yet") },
		Doctor:  func(context.Context) any { return doctorFacts(s.config, s.status()) },
		Diff: api.DiffHandler(func(context.Context, io.Reader) (any, error) {
			return nil, failing("nothing is served yet that could be compared")
		}),
		Accept:  func(context.Context, string) error { return guard.ErrNothingHeld },
		Drain:   func(context.Context, string, time.Duration, string) (string, error) { return "", s.notYet() },
		Restore: func(context.Context, string, string) (string, error) { return "", s.notYet() },
		Hosts:   s.config.AdminHosts,
		Page:    s.dashboard.Handler(adminAuthorizer()),
		Metrics: promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),
	})
}

// startupMetrics are those of the metrics that are known before the tailnet is
// joined.
type startupMetrics struct{ s *startup }

// Describe implements [prometheus.Collector].
func (m startupMetrics) Describe(c chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, c) }

// Collect implements [prometheus.Collector].
func (m startupMetrics) Collect(c chan<- prometheus.Metric) {
	d := newDescriptions()
	send := gauge(func(d *prometheus.Desc, v float64, labels ...string) {
		c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	})
	built := version.Current()
	send(d.build, 1, built.Version, built.Commit, built.Go)
	send(d.ready, 0)
	send(d.policyBad, boolValue(m.s.policyError != ""))
	send(d.stateLost, boolValue(m.s.stateLost))
	send(d.age, time.Since(m.s.began).Seconds(), m.s.config.Provider)
}
