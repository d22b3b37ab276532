package topology

import (
	"encoding/json"
	"strings"
	"testing"
)

// Each value is taken up to its bound, and not beyond.
func TestBuild_valueAtItsBound_isTakenAndNotBeyond(t *testing.T) {
	letters := strings.Repeat("a", 63)
	for tag, want := range map[string]string{
		"tag:weight-1000": "server p0 / =1000: 100.64.0.1:8080*1000\n", "tag:weight-1": "server p0 / =1: 100.64.0.1:8080*1\n",
		"tag:weight-0":           "server idle drained 100.64.0.1:8080*0\n",
		"tag:weight-001":         "server p0 / =1: 100.64.0.1:8080*1\n",
		"tag:service-" + letters: letters + " p0 / =1: 100.64.0.1:8080*1\n",
		"tag:weight-1001":        "", "tag:service-" + letters + "a": "", "tag:service-": "", "tag:weight-": "", "tag:": "", "tag": "", "ta": "",
	} {
		if got, _ := Build([]Device{device(1, tag)}, rules()); lines(got) != want {
			t.Errorf("%s: got %q, want %q", tag, lines(got), want)
		}
	}
	for tag, good := range map[string]bool{
		"tag:port-1": true, "tag:port-65535": true, "tag:port-0": false, "tag:port-65536": false,
		"tag:priority-0": true, "tag:priority-128": true, "tag:priority-129": false, "tag:zone-" + letters: true, "tag:zone-" + letters + "a": false,
	} {
		if _, problems := Build([]Device{device(1, "tag:weight-1", tag)}, rules()); (len(problems) == 0) != good {
			t.Errorf("%s: %v", tag, problems)
		}
	}
}

// A good value above makes a bad one below harmless, for every key.
func TestBuild_invalidTagBelowAValidAttribute_isHarmless(t *testing.T) {
	tags := map[string]string{"weight": "tag:weight-x", "port": "tag:port-x", "priority": "tag:priority-x", "service": "tag:service-_", "region": "tag:region-_", "zone": "tag:zone-_"}
	good := map[string]string{"weight": "5", "port": "81", "priority": "7", "service": "new", "region": "new", "zone": "new"}
	was := device(1, "tag:weight-2", "tag:port-80", "tag:priority-1", "tag:service-old", "tag:region-old", "tag:zone-old")
	r := rules()
	before, _ := Build([]Device{was}, r)
	r.LastGood = lastGood(before.ByDevice())
	for key, tag := range tags {
		d := device(1, append([]string{tag}, was.Tags...)...)
		d.Attributes = map[string]string{key: good[key]}
		_, problems := Build([]Device{d}, r)
		for _, p := range problems {
			if strings.Contains(p.Reason, "keeps its last valid values") {
				t.Errorf("%s: the attribute says it, and the past counts: %v", key, p)
			}
		}
		d.Attributes = nil
		if _, problems := Build([]Device{d}, r); !strings.Contains(problems[len(problems)-1].Reason, "keeps its last valid values") {
			t.Errorf("%s: nothing says it, and the past does not count: %v", key, problems)
		}
	}
}

func TestCompact_longJSON_isCut(t *testing.T) {
	of := func(n int) string {
		return compact(json.RawMessage(`{"a": "` + strings.Repeat("x", n-len(`{"a":""}`)) + `"}`))
	}
	if got := of(200); len(got) != 200 || strings.Contains(got, "…") || strings.Contains(got, " ") {
		t.Errorf("200 bytes became %d: %s", len(got), got)
	}
	if got := of(201); len(got) != 200+len("…") || !strings.HasSuffix(got, "…") {
		t.Errorf("201 bytes became %d", len(got))
	}
	if got := compact(json.RawMessage("no\xffJSON")); got != "no?JSON" {
		t.Errorf("got %q", got)
	}
}
