package topology

import (
	"strings"
	"testing"
)

func TestSuggestTag_typo_namesTheLikelyTag(t *testing.T) {
	for tag, want := range map[string]string{
		// slips of the pen
		"tag:weigth-2": "tag:weight-2", "tag:wieght-2": "tag:weight-2", "tag:weght-0": "tag:weight-0", "tag:ewight-2": "tag:weight-2",
		"tag:weights-2": "tag:weight-2", "tag:waight-2": "tag:weight-2", "tag:Weigth-2": "tag:weight-2", "tag:weigth-5000": "tag:weight-5000", "tag:wegth-3": "tag:weight-3",
		"tag:serivce-hello": "tag:service-hello", "tag:srevice-hello": "tag:service-hello", "tag:servicce-a-b": "tag:service-a-b",
		"tag:regoin-west": "tag:region-west", "tag:regio-us-east": "tag:region-us-east", "tag:zoen-a": "tag:zone-a", "tag:zonne-a": "tag:zone-a",
		"tag:prot-8080": "tag:port-8080", "tag:prt-8080": "tag:port-8080", "tag:pirority-1": "tag:priority-1", "tag:priorty-1": "tag:priority-1",
		// the mark between
		"tag:weight_2": "tag:weight-2", "tag:weight2": "tag:weight-2", "tag:weight=2": "tag:weight-2", "tag:weight:2": "tag:weight-2",
		"tag:weight–2": "tag:weight-2", "tag:port8080": "tag:port-8080", "tag:region_west": "tag:region-west", "tag:service=hello": "tag:service-hello",
		// both
		"tag:serivec-hello": "tag:service-hello", "tag:servcei-hello": "tag:service-hello",
		"tag:wieght2": "tag:weight-2", "tag:weigth--2": "tag:weight-2", "tag:serivce_hello": "tag:service-hello",
		// nothing before it
		"weight-2": "tag:weight-2", "service-hello": "tag:service-hello", "weigth_2": "tag:weight-2",
	} {
		if got := newGrammar("").suggestTag(tag); got != want {
			t.Errorf("%s: got %q, want %s", tag, got, want)
		}
	}
}

// Tags of other purposes are of no concern, however near to ours they look.
func TestSuggestTag_tagOfAnotherPurpose_isIgnored(t *testing.T) {
	for _, tag := range strings.Fields(`
		tag:server tag:servers tag:server-1 tag:server-prod tag:service tag:services tag:services-prod tag:servicedesk tag:servicemesh-1 tag:serve-x
		tag:service1 tag:device-a tag:devices tag:survey-2 tag:sensor-1 tag:prod tag:production tag:k8s tag:k8s-operator tag:web tag:web-1 tag:west
		tag:west-1 tag:east tag:east-2 tag:ports tag:ports-80 tag:port tag:portal-1 tag:portfolio tag:post-80 tag:part-2 tag:pos-1 tag:pro-2 tag:proto-3
		tag:report-1 tag:export-9 tag:support-1 tag:sport-1 tag:fort-1 tag:pod-1 tag:zone tag:zones tag:zones-a tag:zone1 tag:ozone-a tag:done-a tag:one-a
		tag:none-x tag:zoe-laptop tag:tone-1 tag:region tag:regions tag:regional tag:regional-a tag:region1 tag:legion-x tag:reason-a tag:religion-a
		tag:priority tag:prior-2 tag:private-1 tag:primary-1 tag:weight tag:height-2 tag:eight-8 tag:freight-2 tag:night-1 tag:right-2 tag:light-3
		tag:weigh-station tag:weight-watchers-app tag:wheat-1 tag:wait-5 tag:worker-2 tag:ci tag:db tag:db-1 tag:laptop tag:nas tag:exit-node tag:infra
		tag:control-plane tag:envoy tag:gateway-1 tag:unrelated tag:a tag:p-1 tag: tag:- tag:-2 tag:2 tag:2-weight tag:überwachung-2 server web west-1 port`) {
		if _, problems := Build([]Device{device(1, tag)}, rules()); tag != "tag:weight-watchers-app" && len(problems) > 0 {
			t.Errorf("%s: %s", tag, problems[0].Reason)
		}
		if got := newGrammar("").suggestTag(tag); got != "" {
			t.Errorf("%s: taken for %s", tag, got)
		}
	}
}

func TestBuild_newDeviceWithATypo_joinsNothing(t *testing.T) {
	got, problems := Build([]Device{device(1, "tag:weigth-2", "tag:region-east"), device(2, "tag:weight-1", "tag:regoin-east")}, rules())
	if lines(got) != "" {
		t.Errorf("got %q", lines(got))
	}
	if len(problems) != 2 || problems[0].Subject != "tag:weigth-2" || problems[0].Reason != "unknown tag: did you mean tag:weight-2? a device that is new joins no service until this is fixed" ||
		problems[1].Name != "d2" || !strings.Contains(problems[1].Reason, "tag:region-east?") {
		t.Errorf("problems: %+v", problems)
	}
}

func TestSuggestKey_unknownKey_namesTheLikelyOne(t *testing.T) {
	for key, want := range map[string]string{
		"wieght": "weight", "Weight": "weight", "weights": "weight", "srvice": "service", "prot": "port", "ports": "port", "zones": "zone",
		"priorty": "priority", "Region": "region", "name": "", "host": "", "": "", "comment": "", "x": "",
	} {
		got := didYouMean(newGrammar("").suggestKey(key))
		if want != "" {
			want = `did you mean "` + want + `"? `
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", key, got, want)
		}
	}
	d := device(1)
	d.Grants, d.Attributes = grants(`{"service":"a","wieght":2}`), map[string]string{"wait": "1", "wight": "2"}
	_, problems := Build([]Device{d}, rules())
	if len(problems) != 3 || !strings.HasPrefix(problems[0].Reason, "unknown attribute: the attributes are port") ||
		!strings.HasPrefix(problems[1].Reason, `unknown attribute: did you mean "weight"? the attributes are`) ||
		!strings.HasPrefix(problems[2].Reason, `unknown key "wieght": did you mean "weight"? the keys are port`) {
		t.Errorf("problems: %+v", problems)
	}
}

func TestEditDistance_words_countsEdits(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"weight", "weight", 0},
		{"weigth", "weight", 1},
		{"wight", "weight", 1},
		{"wweight", "weight", 1},
		{"waight", "weight", 1},
		{"height", "weight", 1},
		{"wegth", "weight", 2},
		{"server", "service", 3},
		{"", "ab", 2},
		{"ab", "abba", 2},
		{"a", "zone", tooManyEdits},
	} {
		if got, back := EditDistance(c.a, c.b), EditDistance(c.b, c.a); got != c.want || back != c.want {
			t.Errorf("%q and %q: %d and back %d, want %d", c.a, c.b, got, back, c.want)
		}
	}
}

// Whatever a tag is, taking it for a near miss changes no endpoint of a device that
// serves, lets no new one serve, and names a tag of ours.
func FuzzSuggestTag_anyTag_changesNoServingEndpoint(f *testing.F) {
	for _, s := range []string{"tag:weigth-2", "tag:weight_2", "weight2", "tag:serivce-a", "tag:prot-٣", "tag:ports-1", "tag:weight−2", "tag:", "TAG:ZOEN a", "tag:pool-weigth-2", "tag:pool_weight-2", "tag:poolweight-2", "tag:opol-port-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, tag string) {
		for _, prefix := range []string{"", "pool-"} {
			g := newGrammar(prefix)
			likely := g.suggestTag(tag)
			if likely == "" {
				continue
			}
			key, _, _ := strings.Cut(strings.TrimPrefix(likely, "tag:"+prefix), "-")
			if _, ours := g.lookup(key); !ours || g.suggestTag(likely) != "" {
				t.Errorf("%q: %q is no tag of ours", tag, likely)
			}
			r := rules()
			r.TagPrefix = prefix
			without, _ := Build([]Device{device(1, g.tag("weight", "3"))}, r)
			fresh, problems := Build([]Device{device(1, g.tag("weight", "3"), tag)}, r)
			if lines(fresh) != "" || len(problems) != 1 {
				t.Errorf("%q makes a new device %q, with problems %v", tag, lines(fresh), problems)
			}
			r.LastGood = lastGood(without.ByDevice())
			if with, _ := Build([]Device{device(1, g.tag("weight", "3"), tag)}, r); lines(with) != lines(without) {
				t.Errorf("%q makes %q of %q", tag, lines(with), lines(without))
			}
		}
	})
}
