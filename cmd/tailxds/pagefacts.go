package main

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/tailxds/tailxds/internal/dashboard"
	"github.com/tailxds/tailxds/internal/journal"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/traffic"
	"github.com/tailxds/tailxds/internal/xds"
)

// pageFacts are all that the page shows of a service at one moment. What it makes
// of them is pure.
type pageFacts struct {
	now     time.Time
	tailnet string
	status  statusDocument
	traffic traffic.Case
	tables  []traffic.Table
	table   traffic.Table // of the service
	history traffic.History
}

// pageOf gathers what there is to show of a service; of another one, if there is
// none of that name.
func (d *daemon) pageOf(service string) pageFacts {
	now := time.Now()
	f := pageFacts{now: now, tailnet: d.o.Hostname, table: traffic.Table{Service: service}}
	if d.o.Listen != "" {
		f.tailnet = "no tailnet"
	}
	if p := d.published.Load(); p != nil && d.started() {
		c := d.trafficCase(p, d.reports.View(now))
		tables := traffic.Tables(c)
		f.traffic, f.tables, f.table = c, tables, tableOf(tables, cmp.Or(service, d.o.DefaultService))
		f.history = d.reports.History(f.table.Service, now)
		f.status = d.statusBeside(tables)
	} else {
		f.status = d.statusBeside(nil)
	}
	return f
}

// tableOf is a service's table; the first one, if there is no such service.
func tableOf(tables []traffic.Table, service string) traffic.Table {
	i := slices.IndexFunc(tables, func(t traffic.Table) bool { return t.Service == service })
	if i < 0 && len(tables) == 0 {
		return traffic.Table{Service: service}
	}
	return tables[max(i, 0)]
}

// view is the page of a service.
func (f pageFacts) view() dashboard.View {
	places := f.places()
	s := dashboard.Snapshot{
		Tailnet: f.tailnet, Version: f.status.Version, Service: f.table.Service, Mode: string(f.table.Locality),
		Services: []dashboard.ServiceName{}, Regions: places.regions,
		Servers: []dashboard.Server{}, Entries: []dashboard.Entry{}, Held: []dashboard.Held{},
		Problems: f.problems(places), Changes: f.changed(), Notices: f.notices(places),
	}
	for _, service := range f.status.Services {
		serving := len(service.Serving())
		s.Services = append(s.Services, dashboard.ServiceName{Name: service.Name, Serving: serving, Known: serving + len(service.Idle)})
	}
	for _, i := range places.servers {
		s.Servers = append(s.Servers, f.server(f.table.Servers[i].Endpoint))
	}
	for _, e := range places.entries {
		s.Entries = append(s.Entries, e.entry())
	}
	for _, h := range f.status.Held {
		held := dashboard.Held{Service: h.Service, Reason: h.Reason, Names: []string{}}
		for _, e := range h.Endpoints {
			held.Names = append(held.Names, cmp.Or(e.Name, e.Device))
		}
		slices.SortFunc(held.Names, natural)
		if h.Until != nil {
			held.Until = h.Until.UnixMilli()
		}
		s.Held = append(s.Held, held)
	}
	return dashboard.View{Snapshot: s, Tick: f.tick(places), History: f.past()}
}

// server is one endpoint, and why it does not serve.
func (f pageFacts) server(e topology.Endpoint) dashboard.Server {
	s := dashboard.Server{
		ID: e.Address.String(), Device: e.Device, Name: cmp.Or(e.Name, e.Device), Region: e.Region, Zone: e.Zone,
		Priority: int(e.Priority), Weight: int(e.Weight), State: dashboard.State(e.State), Tags: []string{},
	}
	var device topology.Device
	if i := slices.IndexFunc(f.status.Devices, func(d topology.Device) bool { return d.ID == e.Device }); i >= 0 {
		device = f.status.Devices[i]
		s.Tags = append(s.Tags, device.Tags...)
	}
	for _, h := range f.status.Held {
		for _, of := range h.Endpoints {
			if h.Service == f.table.Service && of.Device == e.Device && of.Address == e.Address.String() {
				s.Held, s.Why = true, "the list says "+of.Listed
			}
		}
	}
	for _, w := range f.status.Drains {
		if w.Device == e.Device || slices.Contains(w.Addresses, e.Address.Addr()) {
			s.Word = &dashboard.Word{By: w.By, At: w.At.UnixMilli(), Until: millis(w.Until)}
		}
	}
	if e.State != topology.Serving {
		s.Why = why(e, device)
	}
	return s
}

// why says in few words why an endpoint does not serve. The page tells the time
// as the reader's clock has it, so this tells none.
func why(e topology.Endpoint, device topology.Device) string {
	switch {
	case e.State == topology.Drained && e.DrainedBy != "":
		return "by an operator"
	case e.State == topology.Drained:
		return "weight 0"
	case e.State == topology.Expiring:
		return "its key expires soon"
	case e.State == topology.Expired:
		return "its key has expired"
	case device.ID == "":
		return "not listed"
	default:
		return "off the tailnet"
	}
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// places are the order in which the page lists what it shows, on which every
// figure counts.
type places struct {
	regions []string
	servers []int // of the table's
	entries []pageEntry
}

// pageEntry is a connected Envoy, and what it has reported.
type pageEntry struct {
	id     string
	stream xds.Stream
	report *traffic.Envoy // nil if it has not
}

// places orders regions by name, those without one last, and servers and Envoys
// by region and name.
func (f pageFacts) places() places {
	var p places
	regions := make(map[string]bool)
	for i, s := range f.table.Servers {
		regions[s.Region] = true
		p.servers = append(p.servers, i)
	}
	seen := make(map[string]bool)
	for _, stream := range f.status.Envoys {
		id := stream.Address.Addr().String() + "/" + stream.Node
		if seen[id] {
			continue // an Envoy that connects anew is there twice for a moment
		}
		seen[id] = true
		regions[stream.Region] = true
		p.entries = append(p.entries, pageEntry{id, stream, f.traffic.View.Envoy(stream.Address.Addr(), stream.Node)})
	}
	for _, e := range f.table.Entries {
		regions[e.Region] = true
	}
	p.regions = []string{}
	for region := range regions {
		p.regions = append(p.regions, region)
	}
	slices.SortFunc(p.regions, byRegion)
	slices.SortFunc(p.servers, func(i, j int) int {
		a, b := f.table.Servers[i].Endpoint, f.table.Servers[j].Endpoint
		return cmp.Or(byRegion(a.Region, b.Region), natural(a.Name, b.Name), a.Address.Compare(b.Address))
	})
	slices.SortFunc(p.entries, func(a, b pageEntry) int {
		return cmp.Or(byRegion(a.stream.Region, b.stream.Region), natural(a.name(), b.name()), cmp.Compare(a.id, b.id))
	})
	return p
}

func byRegion(a, b string) int {
	if (a == "") != (b == "") {
		return cmp.Compare(b, a) // none comes last
	}
	return cmp.Compare(a, b)
}

// natural orders names as people do: west-2 before west-10.
func natural(a, b string) int {
	if len(a) != len(b) && strings.TrimRight(a, "0123456789") == strings.TrimRight(b, "0123456789") {
		return cmp.Compare(len(a), len(b))
	}
	return cmp.Compare(a, b)
}

// name is the device's, without its tailnet's domain; without a tailnet, what the
// Envoy calls itself.
func (e pageEntry) name() string {
	name, _, _ := strings.Cut(e.stream.Device, ".")
	if _, err := netip.ParseAddr(e.stream.Device); err == nil || name == "" {
		return cmp.Or(e.stream.Node, e.stream.Address.Addr().String())
	}
	return name
}

func (e pageEntry) entry() dashboard.Entry {
	entry := dashboard.Entry{ID: e.id, Name: e.name(), Region: e.stream.Region, Sync: dashboard.InSync, Since: e.stream.Since.UnixMilli()}
	var words []string
	for _, kind := range slices.Sorted(maps.Keys(e.stream.Types)) {
		switch state := e.stream.Types[kind]; {
		case state.Rejected != "":
			words = append(words, kind+": "+state.Rejected)
		case state.Pending && len(words) == 0:
			entry.Sync = dashboard.Pending
		}
	}
	if len(words) > 0 {
		entry.Sync, entry.Words = dashboard.Rejected, strings.Join(words, "\n")
	}
	return entry
}

// reporting is whether an Envoy has told of late what it measured.
func (e pageEntry) reporting() bool { return e.report != nil && !e.report.Stale }

// changed is the timeline: what is the service's, and what is of none.
func (f pageFacts) changed() []dashboard.Change {
	all := []dashboard.Change{}
	for _, c := range f.status.Changes {
		if len(all) == mostChanges || f.now.Sub(c.At) > historyOf {
			break
		}
		if c.Service != "" && c.Service != f.table.Service {
			continue
		}
		change := dashboard.Change{ID: fmt.Sprint(c.ID), At: c.At.UnixMilli(), Kind: signOf(c), Text: c.Text, By: c.By}
		if rest, ok := strings.CutPrefix(c.Text, c.Name+" "); ok && c.Name != "" {
			change.Name, change.Text = c.Name, rest
		}
		if c.Reach != nil {
			change.Effect = c.Reach.String()
		}
		all = append(all, change)
	}
	return all
}

const (
	// historyOf is the time that the page shows.
	historyOf   = 15 * time.Minute
	mostChanges = 60
)

// signOf is the sign by which the page shows a change.
func signOf(c journal.Change) string {
	switch c.Kind {
	case journal.Added, journal.Came:
		return "joined"
	case journal.Removed, journal.Went:
		return "left"
	case journal.Weight, journal.Held, journal.Rejected, journal.Policy, journal.Accepted:
		return string(c.Kind)
	case journal.Drain:
		return "drained"
	case journal.Restore:
		return "restored"
	case journal.State:
		switch topology.State(c.To) {
		case topology.Serving:
			return "restored"
		case topology.Drained:
			return "drained"
		default:
			return "left"
		}
	case journal.Problem:
		return "attention"
	case journal.Mended, journal.Recovered, journal.Released:
		return "in-sync"
	default:
		return "other"
	}
}
