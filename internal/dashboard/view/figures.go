package view

import (
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/tailxds/tailxds/internal/dashboard"
	"github.com/tailxds/tailxds/internal/traffic"
)

// unknown is what the page is told of a figure that nobody measured.
const unknown = -1

// tick are the figures of now, in the order of places.
func (f Input) tick(p order) dashboard.Tick {
	t := dashboard.Tick{
		At: f.Now.UnixMilli(), Servers: [][6]float64{}, Entries: [][4]float64{}, Flows: [][]float64{},
		Total: [4]float64{unknown, unknown, unknown, unknown}, Crossing: unknown,
	}
	measured := len(f.Table.Entries) > 0
	if measured {
		t.Total = [4]float64{roundRate(f.Table.Requests), roundRate(f.Table.Errors), roundMilliseconds(f.Table.P50), roundMilliseconds(f.Table.P99)}
	}
	if f.Table.Requests > 0 {
		t.Crossing = roundShare(f.Table.Crossing)
	}
	for _, i := range p.servers {
		s := f.Table.Servers[i]
		row := [6]float64{unknown, unknown, unknown, roundShare(s.Expected), float64(s.Healthy), float64(s.Reporting)}
		if measured {
			row[0], row[1] = roundRate(s.Requests), roundRate(s.Errors)
		}
		if f.Table.Requests > 0 {
			row[2] = roundShare(s.Observed)
		}
		t.Servers = append(t.Servers, row)
	}
	for _, region := range p.regions {
		t.Flows = append(t.Flows, f.flows(p, region))
	}
	for _, e := range p.entries {
		row := [4]float64{unknown, unknown, unknown, unknown}
		if e.isReporting() {
			t.Reporting++
			row = e.figures(f.Table.Service)
			t.Window = max(t.Window, e.report.Over.Milliseconds())
		}
		t.Entries = append(t.Entries, row)
	}
	return t
}

// flows are the requests of a region's Envoys to each server.
func (f Input) flows(p order, region string) []float64 {
	row := make([]float64, len(p.servers))
	i := slices.IndexFunc(f.Table.Entries, func(e traffic.Entry) bool { return e.Region == region })
	if i < 0 {
		for k := range row {
			row[k] = unknown
		}
		return row
	}
	for k, server := range p.servers {
		row[k] = roundRate(f.Table.Entries[i].To[server])
	}
	return row
}

// figures are what an Envoy measured of a service.
func (e entry) figures(service string) [4]float64 {
	row := [4]float64{0, 0, unknown, unknown}
	i := slices.IndexFunc(e.report.Services, func(s traffic.Service) bool { return s.Name == service })
	if i < 0 {
		return row
	}
	s := e.report.Services[i]
	for _, to := range s.Endpoints {
		row[0] += to.Requests
		row[1] += to.Errors
	}
	row[0], row[1] = roundRate(row[0]), roundRate(row[1])
	row[2], row[3] = quantiles(s.Latency)
	return row
}

func quantiles(l traffic.Latency) (p50, p99 float64) {
	ms := func(q float64) float64 { return roundMilliseconds(float64(l.Quantile(q)) / float64(time.Millisecond)) }
	return ms(0.5), ms(0.99)
}

// roundMilliseconds is unknown where there was no request.
func roundMilliseconds(ms float64) float64 {
	if ms <= 0 {
		return unknown
	}
	return math.Round(ms*100) / 100
}

// roundRate and fine keep what is sent short: rates to a tenth, shares to a
// hundredth of a percent.
func roundRate(x float64) float64  { return math.Round(x*10) / 10 }
func roundShare(x float64) float64 { return math.Round(x*1e4) / 1e4 }

// history is the history: each region's share, step by step, and how long requests
// took.
func (f Input) history() dashboard.History {
	h := dashboard.History{
		Start: f.History.Start.UnixMilli(), Step: f.History.Step.Milliseconds(),
		Regions: []string{}, Shares: [][]int{}, Rate: []float64{}, Latency: [][2]float64{},
	}
	home := make(map[netip.AddrPort]string)
	for _, s := range f.Table.Servers {
		home[s.Address] = s.Region
	}
	sums := make(map[string][]float64)
	total := make([]float64, f.History.Steps())
	for _, e := range f.History.Endpoints {
		region := home[e.Address]
		if sums[region] == nil {
			sums[region] = make([]float64, f.History.Steps())
			h.Regions = append(h.Regions, region)
		}
		for i, n := range e.Requests {
			sums[region][i] += n
			total[i] += n
		}
	}
	slices.SortFunc(h.Regions, compareRegions)
	for i := range f.History.Steps() {
		row := []int{}
		p50, p99 := quantiles(f.History.Latency[i])
		if total[i] > 0 {
			for _, region := range h.Regions {
				row = append(row, int(math.Round(1000*sums[region][i]/total[i])))
			}
		}
		rate := float64(unknown)
		if len(f.History.Endpoints) > 0 {
			rate = roundRate(total[i])
		}
		h.Shares, h.Rate, h.Latency = append(h.Shares, row), append(h.Rate, rate), append(h.Latency, [2]float64{p50, p99})
	}
	return h
}
