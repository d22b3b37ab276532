package view

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tailxds/tailxds/internal/dashboard"
	"github.com/tailxds/tailxds/internal/events"
	"github.com/tailxds/tailxds/internal/guard"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/traffic"
)

// problemLines are the page's problems, one a line, without their mends.
func problemLines(f Input) string {
	return names(f.View().Snapshot.Problems, func(p dashboard.Problem) string {
		return strings.TrimSpace(fmt.Sprintf("%s: %s %s", p.Severity, strings.TrimSpace(p.Name+" "+p.Title), p.Detail))
	})
}

// sickFor is a server that so many of six Envoys find unhealthy.
func sickFor(n byte) Input {
	var envoys []Envoy
	var reports []traffic.Envoy
	for i := byte(1); i <= 6; i++ {
		e := envoy(10+i, fmt.Sprint("e", i), "west")
		envoys = append(envoys, e)
		var sick []byte
		if i <= n {
			sick = []byte{1}
		}
		reports = append(reports, report(e, map[byte]float64{1: 1}, sick...))
	}
	return known([]topology.Endpoint{endpoint(1, "a", "west", 1, topology.Serving)}, envoys, reports...)
}

func TestView_problems_areListed(t *testing.T) {
	west := envoy(11, "west-1", "west")
	of := func(edit func(*Input)) Input {
		f := pool()
		edit(&f)
		return f
	}
	sick := known([]topology.Endpoint{endpoint(1, "a", "west", 1, topology.Serving), endpoint(2, "b", "west", 1, topology.Serving)}, []Envoy{west},
		report(west, map[byte]float64{1: 1, 2: 1}, 2))
	sick.Problems = append(traffic.Unhealthy(sick.Tables), topology.Problem{Device: "d2", Name: "b", Subject: "tag:wait-3", Reason: "no such tag"})
	for name, test := range map[string]struct {
		facts Input
		want  string
	}{
		"none":               {pool(), ""},
		"policy":             {of(func(f *Input) { f.PolicyError = "line 3" }), "error: The policy file is bad line 3"},
		"publishing":         {of(func(f *Input) { f.PublishError = "too large" }), "error: Nothing new can be published too large"},
		"nobody serves":      {of(func(f *Input) { f.Degraded = []string{"shop: 0 of 2 serving"} }), "error: Nobody serves shop: 0 of 2 serving"},
		"unhealthy, once":    {sick, "error: b is unhealthy 1 of 1 Envoys say so, warning: b tag:wait-3 no such tag"},
		"unhealthy for one":  {sickFor(1), "warning: a is unhealthy for some 1 of 6 Envoys say so: e1"},
		"unhealthy for four": {sickFor(4), "warning: a is unhealthy for some 4 of 6 Envoys say so: e1, e2, e3, e4"},
		"unhealthy for five": {sickFor(5), "warning: a is unhealthy for some 5 of 6 Envoys say so: e1, e2, e3, e4 and 1 more"},
		"for one, but idle":  {of(func(f *Input) { f.Table.Servers[3].Reporting, f.Table.Servers[3].Healthy = 2, 1 }), ""},
		"rejected":           {of(func(f *Input) { f.Envoys[0].Rejected = map[string]string{"CDS": "no"} }), "error: west-1 rejected what it was sent CDS: no"},
		"silent":             {of(func(f *Input) { f.Traffic.View.Envoys[0].Stale = true }), "warning: west-1 reports no more"},
		"no report, no name": {of(func(f *Input) { f.Envoys[0].Node = "other" }), "warning: west-1 reports nothing"},
		"all are silent": {of(func(f *Input) {
			for i := range f.Traffic.View.Envoys {
				f.Traffic.View.Envoys[i].Stale = true
			}
		}), ""}, // a notice says it
		"not silent for long": {of(func(f *Input) {
			f.Traffic.View.Envoys[0].Stale = true
			f.Envoys[0].Since = noon.Add(-firstReportTimeout)
		}), ""},
		"silent for long": {of(func(f *Input) {
			f.Traffic.View.Envoys[0].Stale = true
			f.Envoys[0].Since = noon.Add(-firstReportTimeout - 1)
		}), "warning: west-1 reports no more"},
	} {
		equal(t, name, problemLines(test.facts), test.want)
		for _, p := range test.facts.View().Snapshot.Problems {
			if p.Remedy == "" {
				t.Errorf("%s: %s has no mend", name, p.Title)
			}
		}
	}
	found := sick.View().Snapshot.Problems
	equal(t, "what a sick server's problem is about", []any{found[0].About, found[0].ID}, []any{dashboard.AboutServer, "100.64.0.2:8080"})
	equal(t, "what a tag's problem is about", []any{found[1].About, found[1].ID}, []any{dashboard.AboutServer, "100.64.0.2:8080"})
	silent := of(func(f *Input) { f.Traffic.View.Envoys[0].Stale = true }).View().Snapshot.Problems[0]
	equal(t, "what a silent Envoy's problem is about", []any{silent.About, silent.ID, silent.Since}, []any{dashboard.AboutEntry, "100.64.0.11/west-1", noon.UnixMilli()})
}

func TestView_problem_tellsSince(t *testing.T) {
	f := pool()
	f.Envoys[0].Rejected = map[string]string{"CDS": "no"}
	f.Problems = []topology.Problem{{Device: "d1", Name: "a", Subject: "tag:x"}, {Device: "gone", Name: "gone", Subject: "tag:x"}}
	f.Changes = []events.Event{
		{ID: 5, At: noon.Add(-time.Second), Kind: events.Rejected, Name: "other"},
		{ID: 4, At: noon.Add(-2 * time.Second), Kind: events.Rejected, Name: f.Envoys[0].Device},
		{ID: 3, At: noon.Add(-3 * time.Second), Kind: events.Rejected, Name: f.Envoys[0].Device},
		{ID: 2, At: noon.Add(-4 * time.Second), Kind: events.Fixed, Device: "d1", To: "tag:x"},
		{ID: 1, At: noon.Add(-5 * time.Second), Kind: events.Problem, Device: "d1", To: "tag:x"},
	}
	var since []int64
	for _, p := range f.View().Snapshot.Problems {
		since = append(since, p.Since)
	}
	equal(t, "since", since, []int64{noon.Add(-2 * time.Second).UnixMilli(), noon.Add(-5 * time.Second).UnixMilli(), 0})
	f.Changes = f.Changes[1:]
	equal(t, "since the newest change", f.View().Snapshot.Problems[0].Since, noon.Add(-2*time.Second).UnixMilli())
	equal(t, "about a device that is no server", f.View().Snapshot.Problems[2].About, dashboard.AboutNothing)
}

func TestView_problems_haveARemedy(t *testing.T) {
	for subject, want := range map[string]string{
		"tag:weight-x": "another tag", "grant 1": "edit the grant", "custom:weight": "posture attribute anew", "region": "bootstrap --region",
		"missing": "whether the source's list is whole", "offline": "whether the source's list is whole", "peer": "tailxds explain",
	} {
		if got := remedyOf(topology.Problem{Subject: subject}); !strings.Contains(got, want) {
			t.Errorf("%s: %q", subject, got)
		}
	}
}

func TestView_staleFacts_areNotices(t *testing.T) {
	of := func(edit func(*Input)) Input {
		f := pool()
		f.Source = &Source{}
		edit(&f)
		return f
	}
	mute := func(f *Input) { f.Traffic.View.Envoys = nil }
	for name, test := range map[string]struct {
		facts Input
		want  string
	}{
		"none":         {of(func(*Input) {}), ""},
		"before it is": {Input{Detail: "not ready: joining"}, "Not ready: joining"},
		"old":          {of(func(f *Input) { *f.Source = Source{true, noon, "no route", true} }), "The list of devices is old: It is from 2026-06-01 12:00:00 UTC; what it says is served on. No route."},
		"no link": {of(func(f *Input) { f.Source.LinkDown = true }), "The link to the coordination server is down: Changes of devices, tags and grants act late. " +
			"The control plane's node connects again by itself: is the server up, and reachable from it?"},
		"from before":    {of(func(f *Input) { *f.Source = Source{true, noon, "", false} }), "The list of devices is old: It is from 2026-06-01 12:00:00 UTC; what it says is served on. None has come since the start."},
		"no Envoy":       {of(func(f *Input) { f.Envoys = nil; mute(f) }), "No Envoy is connected: Nothing is known of traffic and health. Give each Envoy the bootstrap that `tailxds bootstrap` prints."},
		"two are silent": {of(mute), "No Envoy reports: Nothing is known of traffic and health, though 2 are connected: were they started with the bootstrap that this `tailxds bootstrap` prints?"},
		"one is silent":  {of(func(f *Input) { mute(f); f.Envoys = f.Envoys[:1] }), "No Envoy reports: Nothing is known of traffic and health, though 1 is connected: were they started with the bootstrap that this `tailxds bootstrap` prints?"},
		"they have just come": {of(func(f *Input) {
			mute(f)
			f.Envoys[0].Since, f.Envoys[1].Since = noon, noon.Add(-firstReportTimeout)
		}), ""},
		"one has been there": {of(func(f *Input) {
			mute(f)
			f.Envoys[0].Since, f.Envoys[1].Since = noon, noon.Add(-firstReportTimeout-1)
		}), "No Envoy reports: Nothing is known of traffic and health, though 2 are connected: were they started with the bootstrap that this `tailxds bootstrap` prints?"},
	} {
		equal(t, name, names(test.facts.View().Snapshot.Notices, func(n dashboard.Notice) string { return n.Title + ": " + n.Text }), test.want)
	}
}

func TestView_events_areChanges(t *testing.T) {
	f := pool()
	f.Changes = []events.Event{
		{ID: 9, At: noon, Kind: events.Weight, Service: "server", Name: "a", Text: "a in server: weight 1 → 2", Rollout: &events.Rollout{Sent: 2, Acked: 1, Millis: 310}},
		{ID: 8, At: noon, Kind: events.Weight, Service: "other", Name: "a", Text: "a in other: weight 1 → 2"},
		{ID: 7, At: noon, Kind: events.Drain, Name: "a", Text: "a is drained by alice until it is restored", By: "alice"},
		{ID: 6, At: noon, Kind: events.Accepted, Text: "what was held is let through", By: "alice"},
		{ID: 5, At: noon.Add(-maxChangeAge), Kind: events.Policy, Text: "the policy was edited"},
		{ID: 4, At: noon.Add(-maxChangeAge - 1), Kind: events.Policy, Text: "long ago"},
	}
	equal(t, "changes", f.View().Snapshot.Changes, []dashboard.Change{
		{ID: "9", At: noon.UnixMilli(), Kind: "weight", Name: "a", Text: "in server: weight 1 → 2", Effect: "on 1 of 2 Envoys after 0.31 s"},
		{ID: "7", At: noon.UnixMilli(), Kind: "drained", Name: "a", Text: "is drained by alice until it is restored"},
		{ID: "6", At: noon.UnixMilli(), Kind: "accepted", Text: "what was held is let through", By: "alice"},
		{ID: "5", At: noon.Add(-maxChangeAge).UnixMilli(), Kind: "policy", Text: "the policy was edited"},
	})
	f.Changes = make([]events.Event, maxChanges+1)
	for i := range f.Changes {
		f.Changes[i].At = noon
	}
	equal(t, "how many", len(f.View().Snapshot.Changes), maxChanges)
}

func TestIconOf_kinds_haveOne(t *testing.T) {
	for want, changes := range map[string][]events.Event{
		"joined": {{Kind: events.Added}, {Kind: events.EnvoyConnected}}, "left": {{Kind: events.Removed}, {Kind: events.EnvoyDisconnected}, {Kind: events.State, To: "offline"}, {Kind: events.State, To: "expired"}},
		"weight": {{Kind: events.Weight}}, "held": {{Kind: events.Held}}, "rejected": {{Kind: events.Rejected}}, "policy": {{Kind: events.Policy}}, "accepted": {{Kind: events.Accepted}},
		"drained": {{Kind: events.Drain}, {Kind: events.State, To: "drained"}}, "restored": {{Kind: events.Restore}, {Kind: events.State, To: "serving"}},
		"attention": {{Kind: events.Problem}}, "in-sync": {{Kind: events.Fixed}, {Kind: events.Recovered}, {Kind: events.Released}},
		"other": {{Kind: events.Started}, {Kind: events.Moved}, {Kind: events.Service}},
	} {
		for _, c := range changes {
			equal(t, string(c.Kind)+" "+c.To, iconOf(c), want)
		}
	}
}

func TestPreview_actions_giveShares(t *testing.T) {
	ask := func(act dashboard.ActionKind, device string) dashboard.Action {
		return dashboard.Action{Kind: act, Service: "server", Device: device}
	}
	round := func(shares []float64) (text string) {
		for _, s := range shares {
			text += fmt.Sprintf("%.3f ", s)
		}
		return strings.TrimSpace(text)
	}
	alone := known([]topology.Endpoint{endpoint(1, "a", "west", 1, topology.Serving), endpoint(2, "b", "west", 0, topology.Drained)}, nil)
	held := pool()
	held.Held = []guard.Held{
		{Service: "other", Endpoints: []guard.HeldEndpoint{{Device: "d1", Address: "100.64.0.1:8080"}}},
		{Service: "server", Endpoints: []guard.HeldEndpoint{{Device: "d2", Address: "100.64.0.2:8080"}, {Device: "d1", Address: "100.64.0.1:8081"}}},
	}
	gone := pool()
	gone.Services = nil
	idleNorth := known([]topology.Endpoint{
		endpoint(1, "a", "west", 1, topology.Serving), endpoint(2, "b", "west", 1, topology.Serving), endpoint(4, "d", "north", 2, topology.Drained),
	}, nil)
	idle := known([]topology.Endpoint{endpoint(4, "d", "north", 2, topology.Drained)}, nil)
	for name, test := range map[string]struct {
		facts                 Input
		ask                   dashboard.Action
		regions, before, then string
		stays                 string
	}{
		"drain":               {pool(), ask(dashboard.ActDrain, "d2"), "east west", "0.333 0.667", "0.667 0.333", ""},
		"drain a whole west":  {known([]topology.Endpoint{endpoint(1, "a", "west", 1, topology.Serving), endpoint(3, "c", "east", 1, topology.Serving)}, nil), ask(dashboard.ActDrain, "d1"), "east west", "0.500 0.500", "1.000 0.000", ""},
		"restore":             {pool(), ask(dashboard.ActRestore, "d4"), "east west", "0.333 0.667", "0.500 0.500", ""},
		"drain the last":      {alone, ask(dashboard.ActDrain, "d1"), "west", "1.000", "1.000", "Nobody else serves server: it serves on until another does, or until that loss is accepted."},
		"restore in vain":     {alone, ask(dashboard.ActRestore, "d2"), "west", "1.000", "1.000", "Its own tags or grants still keep it from serving."},
		"accept":              {held, ask(dashboard.ActAccept, ""), "east west", "0.333 0.667", "0.667 0.333", ""},
		"accept what is not":  {pool(), ask(dashboard.ActAccept, ""), "east west", "0.333 0.667", "0.333 0.667", ""},
		"drain who is no one": {pool(), ask(dashboard.ActDrain, "d99"), "east west", "0.333 0.667", "0.333 0.667", ""},
		"nobody serves there": {idleNorth, ask(dashboard.ActDrain, "d1"), "west", "1.000", "1.000", ""},
		"somebody will":       {idleNorth, ask(dashboard.ActRestore, "d4"), "north west", "0.000 1.000", "0.500 0.500", ""},
		"nobody serves":       {idle, ask(dashboard.ActDrain, "d4"), "", "", "", ""},
		"of no service":       {gone, ask(dashboard.ActDrain, "d1"), "", "", "", ""},
	} {
		p := test.facts.Preview(test.ask)
		equal(t, name, []string{strings.Join(p.Regions, " "), round(p.Before), round(p.After), p.NoEffect}, []string{test.regions, test.before, test.then, test.stays})
		if p.Regions == nil || p.Before == nil || p.After == nil {
			t.Errorf("%s: a list is null", name)
		}
	}
}
