package view

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/tailxds/tailxds/internal/dashboard"
	"github.com/tailxds/tailxds/internal/traffic"
)

// order are the order in which the page lists what it shows, on which every
// figure counts.
type order struct {
	regions []string
	servers []int // of the table's
	entries []entry
}

// entry is a connected Envoy, and what it has reported.
type entry struct {
	Envoy
	id     string
	name   string
	report *traffic.Envoy // nil if it has not
}

// order orders regions by name, those without one last, and servers and Envoys
// by region and name.
func (f Input) order() order {
	var p order
	regions := make(map[string]bool)
	for i, s := range f.Table.Servers {
		regions[s.Region] = true
		p.servers = append(p.servers, i)
	}
	seen := make(map[string]bool)
	named := make(map[string]int)
	for _, e := range f.Envoys {
		id := e.Address.String() + "/" + e.Node
		if seen[id] {
			continue // an Envoy that connects anew is there twice for a moment
		}
		seen[id] = true
		regions[e.Region] = true
		named[e.name()]++
		p.entries = append(p.entries, entry{e, id, e.name(), f.Traffic.View.Envoy(e.Address, e.Node)})
	}
	for i := range p.entries { // several Envoys of one device
		if e := &p.entries[i]; named[e.name] > 1 && e.Node != "" {
			e.name += " (" + e.Node + ")"
		}
	}
	for _, e := range f.Table.Entries {
		regions[e.Region] = true
	}
	p.regions = []string{}
	for region := range regions {
		p.regions = append(p.regions, region)
	}
	slices.SortFunc(p.regions, compareRegions)
	slices.SortFunc(p.servers, func(i, j int) int {
		a, b := f.Table.Servers[i].Endpoint, f.Table.Servers[j].Endpoint
		return cmp.Or(compareRegions(a.Region, b.Region), compareNames(a.Name, b.Name), a.Address.Compare(b.Address))
	})
	slices.SortFunc(p.entries, func(a, b entry) int {
		return cmp.Or(compareRegions(a.Region, b.Region), compareNames(a.name, b.name), cmp.Compare(a.id, b.id))
	})
	return p
}

func compareRegions(a, b string) int {
	if (a == "") != (b == "") {
		return cmp.Compare(b, a) // none comes last
	}
	return cmp.Compare(a, b)
}

// compareNames orders names as people do: west-2 before west-10.
func compareNames(a, b string) int {
	if len(a) != len(b) && strings.TrimRight(a, "0123456789") == strings.TrimRight(b, "0123456789") {
		return cmp.Compare(len(a), len(b))
	}
	return cmp.Compare(a, b)
}

// name is the device's, without its tailnet's domain; without a tailnet, what the
// Envoy calls itself.
func (e Envoy) name() string {
	name, _, _ := strings.Cut(e.Device, ".")
	if _, err := netip.ParseAddr(e.Device); err == nil || name == "" {
		return cmp.Or(e.Node, e.Address.String())
	}
	return name
}

func (e entry) toWire() dashboard.Entry {
	shown := dashboard.Entry{ID: e.id, Name: e.name, Region: e.Region, Sync: dashboard.InSync, Since: e.Since.UnixMilli()}
	var words []string
	for _, kind := range slices.Sorted(maps.Keys(e.Rejected)) {
		words = append(words, kind+": "+e.Rejected[kind])
	}
	switch {
	case len(words) > 0:
		shown.Sync, shown.Rejection = dashboard.Rejected, strings.Join(words, "\n")
	case e.Pending:
		shown.Sync = dashboard.Pending
	}
	return shown
}

// isReporting is whether an Envoy has told of late what it measured.
func (e entry) isReporting() bool { return e.report != nil && !e.report.Stale }
