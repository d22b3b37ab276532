package events

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func add(j *Log, at time.Time, n int) {
	for i := range n {
		j.Add(at, 0, Event{Kind: Weight, Text: fmt.Sprint(i)})
	}
}

func TestRecent_oldEvents_lastOnesStay(t *testing.T) {
	var j Log
	start := time.Unix(0, 0)
	add(&j, start, 60)
	add(&j, start.Add(retention), 10)
	count := func(after time.Duration) int { return len(j.Recent(start.Add(after))) }
	if n := count(retention); n != 70 {
		t.Errorf("%d after 15 minutes, want all", n)
	}
	if n := count(retention + 1); n != minKept {
		t.Errorf("%d after more, want the last %d", n, minKept)
	}
	if n := count(9 * retention); n != minKept {
		t.Errorf("%d after hours, want the last %d", n, minKept)
	}
	all := j.Recent(start)
	if all[0].ID != 70 || all[minKept-1].ID != 21 || all[0].Text != "9" {
		t.Errorf("the newest is %+v, the oldest %+v", all[0], all[minKept-1])
	}
	add(&j, start.Add(retention), 2*maxKept)
	if n := count(retention); n != maxKept {
		t.Errorf("%d, want no more than %d", n, maxKept)
	}
}

func TestSetRollout_publication_setsOnlyItsEvents(t *testing.T) {
	var j Log
	now := time.Unix(0, 0)
	j.SetRollout(1, Rollout{Sent: 1}) // of nothing
	j.Add(now, 1, Event{Kind: Weight})
	j.SetRollout(1, Rollout{Sent: 12, Acked: 12, Millis: 310})
	j.Add(now, 2, Event{Kind: State}, Event{Kind: EnvoyConnected})
	j.Add(now, 0, Event{Kind: State})
	j.SetRollout(2, Rollout{Sent: 12, Acked: 3})
	j.SetRollout(2, Rollout{Sent: 12, Acked: 11, Rejected: 1, Millis: 1200})
	j.SetRollout(2, Rollout{}) // it was told to nobody
	j.SetRollout(0, Rollout{Sent: 4})
	var got []string
	for _, c := range j.Recent(now) {
		if c.Rollout == nil {
			got = append(got, "")
			continue
		}
		got = append(got, c.Rollout.String())
	}
	want := []string{"", "", "on 11 of 12 Envoys after 1.20 s, rejected by 1", "on 12 of 12 Envoys after 0.31 s"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAdd_longTexts_areTruncated(t *testing.T) {
	var j Log
	j.Add(time.Unix(0, 0), 0, Event{Text: strings.Repeat("ä", 2*maxText)})
	if got := []rune(j.Recent(time.Unix(0, 0))[0].Text); len(got) != maxText+1 || got[maxText] != '…' {
		t.Errorf("%d runes", len(got))
	}
	whole := strings.Repeat("ä", maxText)
	j.Add(time.Unix(0, 0), 0, Event{Text: whole})
	if got := j.Recent(time.Unix(0, 0))[0].Text; got != whole {
		t.Errorf("a text of the greatest length became %q", got)
	}
}

// A device or an Envoy that comes and goes all the time pushes nothing else out.
func TestAdd_flappingDevice_leavesOthers(t *testing.T) {
	var j Log
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	j.Add(at, 0, Event{Kind: Policy, Text: "an edit"}, Event{Kind: Drain, Device: "other", Text: "a drain"})
	for n := range 5_000 {
		at = at.Add(time.Millisecond)
		j.Add(at, 0,
			Event{Kind: State, Device: "flaps", Text: fmt.Sprint(n)},
			Event{Kind: EnvoyConnected, Name: "an Envoy", Text: fmt.Sprint(n), By: strings.Repeat("x", 10_000)})
	}
	all := j.Recent(at)
	if len(all) != 2+2*maxOfOne || all[len(all)-1].Text != "an edit" || all[len(all)-2].Text != "a drain" || all[0].Text != "4999" || all[2*maxOfOne-1].Text != "4900" {
		t.Errorf("%d changes from %q to %q", len(all), all[0].Text, all[len(all)-1].Text)
	}
	if len([]rune(all[0].By)) > maxText+1 {
		t.Errorf("a text of %d is kept", len(all[0].By))
	}
}
