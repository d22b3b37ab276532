package main

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/tailxds/tailxds/internal/dashboard"
)

// scenario is what happens in a made-up world.
type scenario string

const (
	calm    scenario = "calm"
	trouble scenario = "trouble" // a drain, a loss, a rejection, sick servers
	held    scenario = "held"    // the same, and a loss that is held
	silent  scenario = "silent"  // no Envoy reports
)

// world is a made-up tailnet with traffic, for looks and sizes that a rig of
// real Envoys can't have. That real figures are right is shown elsewhere.
type world struct {
	mu       sync.Mutex
	random   *rand.Rand
	now      time.Time
	demand   float64
	expected []float64
	snapshot dashboard.Snapshot
	tick     dashboard.Tick
	history  dashboard.History
	kind     scenario
}

var regionNames = []string{"eu-central", "us-east", "ap-north", "us-west", "eu-west", "sa-east", "ap-south", "af-south"}

var siteNames = map[string]string{
	"eu-central": "fra", "us-east": "iad", "ap-north": "nrt", "us-west": "sfo",
	"eu-west": "dub", "sa-east": "gru", "ap-south": "bom", "af-south": "jnb",
}

func newWorld(regions, each int, kind scenario, long bool) *world {
	w := &world{random: rand.New(rand.NewPCG(7, 7)), now: time.Now().Truncate(time.Second), demand: 380 * float64(regions*each), kind: kind}
	w.snapshot = dashboard.Snapshot{
		Tailnet: "tailnet.lab", Version: "v0.9.0", Service: "server", Mode: "weighted", Regions: regionNames[:regions],
		Services: []dashboard.ServiceName{{Name: "server"}, {Name: "hello", Serving: 3, Known: 3}, {Name: "search", Known: 2}},
		Servers:  []dashboard.Server{}, Entries: []dashboard.Entry{}, Problems: []dashboard.Problem{}, Changes: []dashboard.Change{},
		Held: []dashboard.Held{}, Notices: []dashboard.Notice{},
	}
	for r, region := range w.snapshot.Regions {
		weights := [][]int{{2, 2, 2, 2}, {3, 3, 1, 1}, {2, 2, 1, 1}, {1, 1, 1, 1}}[r%4]
		for i := range each {
			site := siteNames[region]
			if long {
				site = "checkout-payments-" + site + "-production-blue"
			}
			w.join(fmt.Sprintf("%s-%d", site, i+1), region, weights[i%4])
		}
	}
	if kind == trouble || kind == held {
		w.trouble(each)
	}
	if kind == silent {
		w.snapshot.Notices = append(w.snapshot.Notices, dashboard.Notice{Title: "No Envoy reports", Text: "Nothing is known of traffic and health."})
	}
	w.expect()
	w.past()
	w.pass()
	return w
}

func (w *world) join(name, region string, weight int) {
	s := &w.snapshot
	n := len(s.Servers)
	s.Servers = append(s.Servers, dashboard.Server{
		ID: fmt.Sprintf("100.64.%d.%d:8080", n/200, n%200+3), Device: fmt.Sprint(1000 + n), Name: name, Region: region, State: dashboard.Serving, Weight: weight,
		Tags: []string{"tag:service-server", "tag:region-" + region, fmt.Sprintf("tag:weight-%d", weight)},
	})
	s.Entries = append(s.Entries, dashboard.Entry{ID: "envoy-" + name, Name: name, Region: region, Sync: dashboard.InSync, Since: w.ago(26 * time.Hour)})
}

// expect works out the shares that the weights promise.
func (w *world) expect() {
	total := 0.0
	w.expected = make([]float64, len(w.snapshot.Servers))
	serving := 0
	for i, s := range w.snapshot.Servers {
		if s.State == dashboard.Serving && i != w.sick() {
			w.expected[i] = float64(s.Weight)
			total += w.expected[i]
		}
		if s.State == dashboard.Serving {
			serving++
		}
	}
	for i := range w.expected {
		w.expected[i] /= max(total, 1)
	}
	w.snapshot.Services[0].Serving, w.snapshot.Services[0].Known = serving, len(w.expected)
}

func (w *world) ago(d time.Duration) int64 { return w.now.Add(-d).UnixMilli() }

// The servers to which things happen.
func (w *world) each() int     { return len(w.snapshot.Servers) / max(len(w.snapshot.Regions), 1) }
func (w *world) drained() int  { return w.each() - 1 }
func (w *world) odd() int      { return w.each() + 1 }
func (w *world) offline() int  { return 2*w.each() + 2 }
func (w *world) rejects() int  { return 2 * w.each() }
func (w *world) troubled() int { return w.each() - 2 }

// sick is the server that no Envoy finds healthy; -1 for none.
func (w *world) sick() int {
	if w.kind == trouble || w.kind == held {
		return 2*w.each() + 1
	}
	return -1
}

// trouble is what makes the page worth opening.
func (w *world) trouble(each int) {
	s := &w.snapshot
	server := func(i int) *dashboard.Server { return &s.Servers[i] }
	server(w.drained()).State, server(w.drained()).Reason = dashboard.Drained, "by an operator"
	server(w.drained()).Drain = &dashboard.Drain{By: "operator@example.com", At: w.ago(95 * time.Second), Until: w.ago(-20 * time.Minute)}
	server(w.offline()).State, server(w.offline()).Reason = dashboard.Offline, "off the tailnet"
	nack := &s.Entries[w.rejects()]
	nack.Sync, nack.Rejection = dashboard.Rejected, "CDS server: overprovisioning_factor: value must be greater than or equal to 100"
	problem := func(severity dashboard.Severity, about dashboard.About, id, name, title, words, mend string, since time.Duration) {
		s.Problems = append(s.Problems, dashboard.Problem{Severity: severity, About: about, ID: id, Name: name, Title: title, Detail: words, Remedy: mend, Since: w.ago(since)})
	}
	odd, sick, tagged := server(w.odd()), server(w.sick()), server(w.troubled())
	problem(dashboard.Error, dashboard.AboutServer, sick.ID, sick.Name, "is unhealthy", "12 of 12 Envoys say so", "look at its health check: curl "+sick.ID+"/healthz", 4*time.Minute)
	problem(dashboard.Error, dashboard.AboutEntry, nack.ID, nack.Name, "rejected a cluster", nack.Rejection, "mend the policy file; the Envoy keeps its last good one", 200*time.Second)
	problem(dashboard.Warning, dashboard.AboutServer, odd.ID, odd.Name, "gets fewer requests than expected", "10.4 % and not 15.8 %", "see what its callers say: tailxds explain "+odd.Name, 95*time.Second)
	problem(dashboard.Warning, dashboard.AboutServer, tagged.ID, tagged.Name, "has an ignored tag", "tag:weigth-3: no such tag", "did you mean tag:weight-3?", 6*time.Hour)
	if w.kind == held {
		var names []string
		for _, x := range s.Servers {
			if x.Region != s.Regions[0] && x.State == dashboard.Serving {
				names = append(names, x.Name)
			}
		}
		s.Held = append(s.Held, dashboard.Held{
			Service: "server", Names: names, Until: w.ago(-47 * time.Second),
			Reason: fmt.Sprintf("%d of %d serving devices are missing at once; applied if that stands.", len(names), len(names)+each-1),
		})
		w.note(13*time.Second, "held", "", "a new device list is held", "", s.Held[0].Reason)
	}
	w.note(95*time.Second, "drained", server(w.drained()).Name, "drained", "operator@example.com", "on 12 of 12 Envoys after 0.31 s")
	w.note(200*time.Second, "rejected", nack.Name, "rejected cluster hello", "", "keeps its last good one; 11 others took it")
	w.note(201*time.Second, "policy", "", "Policy file read again", "", "hello: overprovisioning_factor 140 → 90")
	w.note(544*time.Second, "left", server(w.offline()).Name, "left: offline for 15 s", "", "its 9.1 % went to the 11 others")
	w.note(708*time.Second, "weight", server(each).Name, "weight 1 → 3", "", "on 12 of 12 Envoys after 0.28 s")
}

func (w *world) note(ago time.Duration, kind, name, text, by, effect string) {
	s := &w.snapshot
	s.Changes = append(s.Changes, dashboard.Change{ID: fmt.Sprint(len(s.Changes)), At: w.ago(ago), Kind: kind, Name: name, Text: text, By: by, Effect: effect})
	slices.SortStableFunc(s.Changes, func(a, b dashboard.Change) int { return cmp.Compare(b.At, a.At) })
}

// source is the world as a page sees it, a second later each time it is asked.
func (w *world) source() dashboard.Source {
	return dashboard.Source{
		Views: func(services []string) []*dashboard.View {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.pass()
			s := w.snapshot
			s.Servers, s.Changes, s.Held = slices.Clone(s.Servers), slices.Clone(s.Changes), slices.Clone(s.Held)
			return slices.Repeat([]*dashboard.View{{Snapshot: s, Tick: w.tick, History: w.history}}, len(services))
		},
		Preview: func(dashboard.Action) dashboard.Preview {
			return dashboard.Preview{Regions: w.snapshot.Regions, Before: []float64{0.4, 0.3, 0.3}, After: []float64{0.5, 0.2, 0.3}}
		},
		Accept: func(context.Context, string, string) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.snapshot.Held = []dashboard.Held{}
			return nil
		},
		Drain: func(_ context.Context, by, device string, during time.Duration) error {
			word := &dashboard.Drain{By: by, At: w.ago(0)}
			if during > 0 {
				word.Until = w.ago(-during)
			}
			return w.say(device, dashboard.Drained, word)
		},
		Restore: func(_ context.Context, _, device string) error { return w.say(device, dashboard.Serving, nil) },
	}
}

func (w *world) say(device string, state dashboard.State, word *dashboard.Drain) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.snapshot.Servers {
		if s := &w.snapshot.Servers[i]; s.Device == device {
			s.State, s.Drain = state, word
			w.expect()
			w.note(0, string(state), s.Name, string(state), "", "")
			return nil
		}
	}
	return fmt.Errorf("no device is called %q", device)
}
