package topology

import (
	"strings"
	"testing"
)

// A device that never served joins nothing while any key of ours on it is none: it
// would take the requests of the default service's users.
func TestBuild_newDeviceWithAnUnknownKey_joinsNothing(t *testing.T) {
	granted := func(objects ...string) Device {
		d := device(1)
		d.Grants = grants(objects...)
		return d
	}
	attributed := device(1, "tag:weight-1")
	attributed.Attributes = map[string]string{"servcie": "shop"}
	for name, test := range map[string]struct {
		device        Device
		want, problem string
	}{
		"mistyped key":                {granted(`{"servcie":"shop"}`), "", `unknown key "servcie": did you mean "service"?`},
		"mistyped key in upper case":  {granted(`{"SERVCIE":"shop","weight":2}`), "", `unknown key "SERVCIE": did you mean "service"?`},
		"key that is near to none":    {granted(`{"app":"shop"}`), "", `unknown key "app": the keys are port, priority`},
		"key beside a good service":   {granted(`{"service":"shop","comment":"x"}`), "", `unknown key "comment"`},
		"key twice in two cases":      {granted(`{"service":"shop","Service":"a"}`), "", `"Service" and "service" are the same key`},
		"other case":                  {granted(`{"Service":"shop","WEIGHT":2}`), "shop p0 / =2: 100.64.0.1:8080*2\n", ""},
		"only the grant that has it":  {granted(`{"service":"a"}`, `{"servcie":"b"}`), "a p0 / =1: 100.64.0.1:8080*1\n", `did you mean "service"?`},
		"mistyped tag":                {device(1, "tag:servcie-shop", "tag:weight-2"), "", "did you mean tag:service-shop?"},
		"tag with another mark":       {device(1, "tag:service_shop", "tag:weight-2"), "", "did you mean tag:service-shop?"},
		"mistyped tag beside a grant": {func() Device { d := granted(`{"weight":2}`); d.Tags = []string{"tag:servcie-shop"}; return d }(), "", "did you mean tag:service-shop?"},
		"mistyped attribute":          {attributed, "", `unknown attribute: did you mean "service"?`},
		"tags of other purposes":      {device(1, "tag:database", "tag:services-prod", "tag:server-1", "tag:weight-2"), "server p0 / =2: 100.64.0.1:8080*2\n", ""},
	} {
		got, problems := Build([]Device{test.device}, rules())
		if lines(got) != test.want {
			t.Errorf("%s: got %q, want %q", name, lines(got), test.want)
		}
		if test.problem == "" && len(problems) > 0 || test.problem != "" && (len(problems) != 1 || !strings.Contains(problems[0].Reason, test.problem)) {
			t.Errorf("%s: problems %+v, want %q", name, problems, test.problem)
		}
		if x := Explain(test.device, rules()); test.want == "" && x.Missing != "what it says of a service can't be read: see its problems" {
			t.Errorf("%s: explained by %q", name, x.Missing)
		}
	}
}

// With a prefix, the tags of other tools and pools are nobody's concern.
func TestBuild_tagPrefix_onlyItsTagsCount(t *testing.T) {
	r := rules()
	r.TagPrefix = "Pool-"
	for tags, want := range map[string]string{
		"tag:pool-weight-2 tag:pool-service-shop tag:pool-region-west": "shop p0 west/ =2: 100.64.0.1:8080*2\n",
		"TAG:POOL-Weight-2": "server p0 / =2: 100.64.0.1:8080*2\n",
		"tag:service-providers tag:port-forward tag:weight-7 tag:weight-heavy":                          "",
		"tag:pool-weight-2 tag:service-providers tag:port-forward tag:weigth-1":                         "server p0 / =2: 100.64.0.1:8080*2\n",
		"tag:pool-west tag:pool tag:pools-weight tag:other-weight-2 tag:opol-weight-2 tag:poolweight-2": "",
	} {
		got, problems := Build([]Device{device(1, strings.Fields(tags)...)}, r)
		if lines(got) != want || len(problems) > 0 {
			t.Errorf("%s: got %q, want %q, problems %+v", tags, lines(got), want, problems)
		}
	}
	for tag, likely := range map[string]string{
		"tag:pool-weigth-2": "tag:pool-weight-2", "tag:pool-servcie-a": "tag:pool-service-a",
		"pool-weight-2": "tag:pool-weight-2", "tag:pool-weight_2": "tag:pool-weight-2", "tag:pool--weight-2": "tag:pool-weight-2",
	} {
		got, problems := Build([]Device{device(1, "tag:pool-service-x", tag)}, r)
		if lines(got) != "" || len(problems) != 1 || !strings.Contains(problems[0].Reason, "did you mean "+likely+"?") {
			t.Errorf("%s: %q, problems %+v, want %s", tag, lines(got), problems, likely)
		}
	}
	if _, problems := Build([]Device{device(1, "tag:pool-weight-x")}, r); len(problems) != 1 || !strings.Contains(problems[0].Reason, "the value of tag:pool-weight-… must be") {
		t.Errorf("problems %+v", problems)
	}
	if x := Explain(device(1), r); !strings.Contains(x.Missing, "such as tag:pool-weight-1,") {
		t.Errorf("missing: %s", x.Missing)
	}
	if RegionOf([]string{"tag:region-east", "tag:pool-region-west"}, "pool-") != "west" || RegionOf([]string{"tag:region-east"}, "pool-") != "" {
		t.Error("the region is that of another's tag")
	}
	for tags, want := range map[string]bool{"tag:pool-weight-1": true, "tag:POOL-zone-x": true, "tag:weight-1": false, "tag:pool-west": false, "tag:pool-weight-": false} {
		if Tagged([]string{"tag:a", tags}, "pool-") != want {
			t.Errorf("%s: tagged is not %v", tags, want)
		}
	}
}

func TestValidTagPrefix_anyText_isChecked(t *testing.T) {
	for prefix, valid := range map[string]bool{"": true, "pool-": true, "Pool": true, "p1-": true, "1-": false, "-": false, "tag:pool-": false, "a b": false, "a_": false, strings.Repeat("a", 33): false} {
		if err := ValidTagPrefix(prefix); (err == nil) != valid {
			t.Errorf("%q: %v", prefix, err)
		}
	}
}
