package topology

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// values are those that are no defaults, in short.
func (d Description) values() string {
	all := []string{}
	for _, v := range d.Values {
		if v.From.Kind != FromDefault {
			all = append(all, fmt.Sprintf("%s=%s (%s %s)", v.Key, v.Value, v.From.Kind, v.From.Text))
		}
	}
	return strings.Join(all, ", ")
}

func TestExplain_endpoint_namesTheSourceOfEachValue(t *testing.T) {
	grant := json.RawMessage(`{"service":"hello","port":9}`)
	for name, test := range map[string]struct {
		device Device
		rules  func(*Rules)
		want   []string
	}{
		"tags":                 {Device{Tags: []string{"tag:weight-3", "tag:Region-West"}}, nil, []string{"weight=3 (tag tag:weight-3), region=west (tag tag:Region-West)"}},
		"the lowest tag":       {Device{Tags: []string{"tag:weight-3", "tag:weight-2"}}, nil, []string{"weight=2 (tag tag:weight-2)"}},
		"attributes over tags": {Device{Tags: []string{"tag:weight-3"}, Attributes: map[string]string{"Weight": "5"}}, nil, []string{"weight=5 (attribute custom:tailxds_Weight=5)"}},
		"grants over tags": {
			Device{Tags: []string{"tag:port-7", "tag:weight-2"}, Grants: []json.RawMessage{grant, json.RawMessage(`{"service":"b"}`)}, Attributes: map[string]string{"region": "east"}},
			nil,
			[]string{
				`service=hello (grant {"service":"hello","port":9}), weight=2 (tag tag:weight-2), region=east (attribute custom:tailxds_region=east), port=9 (grant {"service":"hello","port":9})`,
				`service=b (grant {"service":"b"}), weight=2 (tag tag:weight-2), region=east (attribute custom:tailxds_region=east), port=7 (tag tag:port-7)`,
			},
		},
		"kept": {
			Device{Tags: []string{"tag:weight-many", "tag:region-west"}}, func(r *Rules) {
				r.LastGood = lastGood(map[string]ServiceEndpoints{"1": {"server": {{Device: "1", Weight: 8}}}})
			}, []string{"weight=8 (kept last valid value: the current one can't be read), region=west (tag tag:region-west)"},
		},
		"an operator above all": {
			Device{Attributes: map[string]string{"weight": "5"}},
			func(r *Rules) { r.Drains = map[string]Drain{"1": {By: "alice"}} },
			[]string{"drained=by alice (operator `tailxds drain`), weight=5 (attribute custom:tailxds_weight=5)"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, rules := test.device, Rules{DefaultService: "server", DefaultPort: 8080}
			d.ID, d.Addresses, d.Online = "1", []string{"100.64.0.1"}, true
			if test.rules != nil {
				test.rules(&rules)
			}
			var got []string
			for _, s := range Explain(d, rules).Services {
				got = append(got, s.values())
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			}
		})
	}
}

func TestExplain_noEndpoint_namesWhatIsMissing(t *testing.T) {
	for name, test := range map[string]struct {
		device   Device
		want     string
		problems int
	}{
		"nothing is said":   {Device{Addresses: []string{"100.64.0.1"}, Tags: []string{"tag:web"}}, "neither a weight nor a service", 0},
		"a slip of a pen":   {Device{Addresses: []string{"100.64.0.1"}, Tags: []string{"tag:wieght-2"}}, "can't be read", 1},
		"no address":        {Device{Tags: []string{"tag:weight-2"}}, "no tailnet address", 1},
		"it is an endpoint": {Device{Addresses: []string{"100.64.0.1"}, Tags: []string{"tag:weight-2"}}, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			test.device.ID = "1"
			x := Explain(test.device, Rules{DefaultService: "server", DefaultPort: 8080})
			if !strings.Contains(x.Missing, test.want) || (test.want == "") != (x.Missing == "") || len(x.Problems) != test.problems || (len(x.Services) > 0) != (test.want == "") {
				t.Errorf("%+v", x)
			}
		})
	}
}

// What is explained is what is built.
func TestExplain_anyDevice_agreesWithBuild(t *testing.T) {
	words := rapid.SampledFrom([]string{"tag:weight-3", "tag:weight-0", "tag:weight-x", "tag:service-a", "tag:region-west", "tag:priority-1", "tag:port-9", "tag:zone-b", "tag:wieght-2", "tag:service--"})
	grants := rapid.SampledFrom([]string{`{"service":"b","weight":2}`, `{"weight":"x"}`, `{"port":99}`, `7`})
	rapid.Check(t, func(t *rapid.T) {
		d := Device{
			ID: "1", Name: "one", Addresses: []string{"100.64.0.1"}, Online: rapid.Bool().Draw(t, "online"),
			Tags: rapid.SliceOfN(words, 0, 4).Draw(t, "tags"),
		}
		for _, g := range rapid.SliceOfN(grants, 0, 2).Draw(t, "grants") {
			d.Grants = append(d.Grants, json.RawMessage(g))
		}
		if rapid.Bool().Draw(t, "attribute") {
			d.Attributes = map[string]string{"weight": rapid.SampledFrom([]string{"4", "x"}).Draw(t, "value")}
		}
		rules := Rules{DefaultService: "server", DefaultPort: 8080, Now: time.Unix(1, 0)}
		if rapid.Bool().Draw(t, "past") {
			rules.LastGood = lastGood(map[string]ServiceEndpoints{"1": {"a": {{Device: "1", Weight: 7, Region: "eu"}}}})
		}
		built, problems := Build([]Device{d}, rules)
		x := Explain(d, rules)
		said := make(map[string]bool)
		for _, s := range x.Services {
			by := make(map[string]string)
			for _, v := range s.Values {
				by[v.Key] = v.Value
			}
			said[fmt.Sprintf("%s/%s/%s/%s/%s/%s", s.Service, by["weight"], by["region"], by["zone"], by["port"], by["priority"])] = true
		}
		n := 0
		for service, e := range built.endpoints {
			n++
			if key := fmt.Sprintf("%s/%d/%s/%s/%d/%d", service, e.Weight, e.Region, e.Zone, e.Address.Port(), e.Priority); !said[key] {
				t.Errorf("%s is built, and not explained: %v", key, said)
			}
		}
		if (n == 0) != (x.Missing != "") {
			t.Errorf("%d endpoints, missing: %q", n, x.Missing)
		}
		if len(x.Problems) > len(problems) {
			t.Errorf("problems %v, built with %v", x.Problems, problems)
		}
	})
}
