// Package alerts evaluates Prometheus's alerting rules, by Prometheus's own
// parser and engine, on what a program says on its /metrics.
package alerts

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

// scrapeInterval is Prometheus's of old, and how often rules are evaluated.
const scrapeInterval = 15 * time.Second

// Rules are alerting rules.
type Rules struct {
	engine *promql.Engine
	rules  []rulefmt.Rule
}

// Load reads a file of rules.
func Load(path string) (Rules, error) {
	p := parser.NewParser(parser.Options{})
	groups, errs := rulefmt.ParseFile(path, false, model.UTF8Validation, p)
	if err := errors.Join(errs...); err != nil {
		return Rules{}, fmt.Errorf("read alerting rules: %w", err)
	}
	r := Rules{engine: promql.NewEngine(promql.EngineOpts{MaxSamples: 1_000_000, Timeout: time.Minute, Parser: p})}
	for _, g := range groups.Groups {
		r.rules = append(r.rules, g.Rules...)
	}
	return r, nil
}

// Names are the alerts' names, in the order of the file.
func (r Rules) Names() []string {
	var all []string
	for _, rule := range r.rules {
		all = append(all, rule.Alert)
	}
	return all
}

// Firing tells which alerts fire if the page that was scraped said the same, for
// as long as each alert waits. Each is given as NAME{label="value"}, without
// the labels job and instance. No page means that the scrape failed.
func (r Rules) Firing(ctx context.Context, page string) ([]string, error) {
	series, err := parse(page)
	if err != nil {
		return nil, err
	}
	firing := make(map[string]bool)
	for _, rule := range r.rules {
		of, err := r.fires(ctx, rule, series)
		if err != nil {
			return nil, err
		}
		maps.Copy(firing, of)
	}
	return slices.Sorted(maps.Keys(firing)), nil
}

// fires evaluates one rule at each step of the time that it waits; it fires for
// the labels that it finds at every one.
func (r Rules) fires(ctx context.Context, rule rulefmt.Rule, series []sample) (map[string]bool, error) {
	end := time.Now().Truncate(time.Second)
	begin := end.Add(-time.Duration(rule.For))
	data := replay(series, begin, end)
	var firing map[string]bool
	for at := begin; !at.After(end); at = at.Add(scrapeInterval) {
		query, err := r.engine.NewInstantQuery(ctx, data, nil, rule.Expr, at)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", rule.Alert, err)
		}
		result := query.Exec(ctx)
		vector, err := result.Vector()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", rule.Alert, err)
		}
		now := make(map[string]bool)
		for _, s := range vector {
			name := rule.Alert + labels.NewBuilder(s.Metric).Del("job", "instance", model.MetricNameLabel).Labels().String()
			now[name] = firing == nil || firing[name]
		}
		query.Close()
		firing = now
	}
	maps.DeleteFunc(firing, func(_ string, all bool) bool { return !all })
	return firing, nil
}

// sample is one line of a page.
type sample struct {
	labels labels.Labels
	value  float64
}

func parse(page string) ([]sample, error) {
	target := map[string]string{"job": "tailxds", "instance": "control-plane:9090"}
	up := sample{value: 1, labels: with(target, model.MetricNameLabel, "up")}
	if page == "" {
		up.value = 0
		return []sample{up}, nil
	}
	p := expfmt.NewTextParser(model.UTF8Validation)
	families, err := p.TextToMetricFamilies(strings.NewReader(page))
	if err != nil {
		return nil, fmt.Errorf("parse the page of metrics: %w", err)
	}
	samples, err := expfmt.ExtractSamples(&expfmt.DecodeOptions{}, slices.Collect(maps.Values(families))...)
	if err != nil {
		return nil, fmt.Errorf("read the page of metrics: %w", err)
	}
	all := []sample{up}
	for _, s := range samples {
		own := maps.Clone(target)
		for name, value := range s.Metric {
			own[string(name)] = string(value)
		}
		all = append(all, sample{labels.FromMap(own), float64(s.Value)})
	}
	return all, nil
}

func with(these map[string]string, name, value string) labels.Labels {
	all := maps.Clone(these)
	all[name] = value
	return labels.FromMap(all)
}

// replay is a database in which a page was scraped from begin to end.
func replay(series []sample, begin, end time.Time) storage.Queryable {
	return &storage.MockQueryable{MockQuerier: &storage.MockQuerier{
		SelectMockFunction: func(_ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
			set := &found{at: -1}
			for _, s := range series {
				if matches(s.labels, matchers) {
					set.all = append(set.all, promql.NewStorageSeries(s.over(begin, end)))
				}
			}
			return set
		},
	}}
}

func matches(l labels.Labels, matchers []*labels.Matcher) bool {
	return !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(l.Get(m.Name)) })
}

// over is the sample, scraped from begin to end.
func (s sample) over(begin, end time.Time) promql.Series {
	series := promql.Series{Metric: s.labels}
	for at := begin; !at.After(end); at = at.Add(scrapeInterval) {
		series.Floats = append(series.Floats, promql.FPoint{T: at.UnixMilli(), F: s.value})
	}
	return series
}

// found are series that a query asked for.
type found struct {
	all []storage.Series
	at  int
}

func (f *found) Next() bool                        { f.at++; return f.at < len(f.all) }
func (f *found) At() storage.Series                { return f.all[f.at] }
func (f *found) Err() error                        { return nil }
func (f *found) Warnings() annotations.Annotations { return nil }
