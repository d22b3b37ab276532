package topology

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A value that can't be read stays as it was said last, key by key and service
// by service: nobody is lost, moved to another service or woken up by a slip.
func TestBuild_invalidValue_keepsTheLast(t *testing.T) {
	granted := func(objects ...string) Device {
		d := device(1)
		d.Grants = grants(objects...)
		return d
	}
	const kept = "keeps its last valid values"
	tests := map[string]struct {
		before, now Device
		want        string
		problems    []string
	}{
		"a mistyped weight, and the rest is new": {
			before: device(1, "tag:weight-4", "tag:region-west"), now: device(1, "tag:weight-four", "tag:region-east"),
			want:     "server p0 east/ =4: 100.64.0.1:8080*4\n",
			problems: []string{"tag:weight-…", kept},
		},
		"a drained server is not woken up": {
			before: device(1, "tag:weight-0"), now: device(1, "tag:weight-O"),
			want:     "server idle drained 100.64.0.1:8080*0\n",
			problems: []string{"tag:weight-…", kept},
		},
		"nor by a weight of another server's tags that it bears, too": {
			before: device(1, "tag:weight-0"), now: device(1, "tag:weight-O", "tag:weight-7"),
			want:     "server idle drained 100.64.0.1:8080*0\n",
			problems: []string{"tag:weight-…", kept},
		},
		"a mistyped service moves nobody": {
			before: device(1, "tag:service-hello", "tag:weight-2"), now: device(1, "tag:service-hello_v2", "tag:weight-3"),
			want:     "hello p0 / =3: 100.64.0.1:8080*3\n",
			problems: []string{"tag:service-…", kept},
		},
		"a mistyped service in place of none": {
			before: device(1, "tag:weight-2"), now: device(1, "tag:service-hello_v2", "tag:weight-2"),
			want:     "server p0 / =2: 100.64.0.1:8080*2\n",
			problems: []string{"tag:service-…", kept},
		},
		"a mistyped port": {
			before: device(1, "tag:weight-2", "tag:port-80"), now: device(1, "tag:weight-3", "tag:port-8O"),
			want:     "server p0 / =3: 100.64.0.1:80*3\n",
			problems: []string{"tag:port-…", kept},
		},
		"zone, region and priority": {
			before:   device(1, "tag:weight-2", "tag:zone-a", "tag:region-west", "tag:priority-1"),
			now:      device(1, "tag:weight-2", "tag:zone-a_", "tag:region-west_", "tag:priority-one"),
			want:     "server p0 west/a =2: 100.64.0.1:8080*2\n",
			problems: []string{"tag:priority-…", "tag:region-…", "tag:zone-…", kept},
		},
		"one bad grant of two": {
			before: granted(`{"service":"a","weight":2}`, `{"service":"b","weight":3}`),
			now:    granted(`{"service":"a","weight":"2"}`, `{"service":"b","weight":4}`),
			want:   "a p0 / =2: 100.64.0.1:8080*2\nb p0 / =4: 100.64.0.1:8080*4\n", problems: []string{"JSON number", kept},
		},
		"a grant whose service can't be read is the one that nobody claims": {
			before: granted(`{"service":"a","weight":2}`, `{"service":"b","weight":3}`),
			now:    granted(`{"service":"a"}`, `{"service":"b_","weight":5}`),
			want:   "a p0 / =1: 100.64.0.1:8080*1\nb p0 / =5: 100.64.0.1:8080*5\n", problems: []string{"service must be", kept},
		},
		"two of them can't be told apart, so both stay": {
			before:   granted(`{"service":"a","weight":2}`, `{"service":"b","weight":3}`),
			now:      granted(`{"service":"a_","weight":9}`, `[]`),
			want:     "a p0 / =2: 100.64.0.1:8080*2\nb p0 / =3: 100.64.0.1:8080*3\n",
			problems: []string{"service must be", "JSON object", kept, kept},
		},
		"a second port of a service is new": {
			before: granted(`{"port":80,"weight":2}`), now: granted(`{"port":80,"weight":"3"}`, `{"port":81,"weight":"3"}`),
			want:     "server p0 / =2: 100.64.0.1:80*2\n",
			problems: []string{"JSON number", "JSON number", kept},
		},
		"a drain that can't be read holds beside another grant of the same endpoint": {
			before: granted(`{"port":80,"weight":2}`, `{"port":80,"weight":0}`), now: granted(`{"port":80,"weight":2}`, `{"port":80,"weight":"0"}`),
			want:     "server idle drained 100.64.0.1:80*0\n",
			problems: []string{"JSON number", kept, "has this address already"},
		},
		"of two ports of one service, the one that is meant": {
			before: granted(`{"port":80,"weight":2}`, `{"port":81,"weight":3}`),
			now:    granted(`{"port":81,"weight":"3"}`, `{"port":80,"weight":4}`),
			want:   "server p0 / =7: 100.64.0.1:81*3 100.64.0.1:80*4\n", problems: []string{"JSON number", kept},
		},
		"of two ports of one service, one that can't be read": {
			before: granted(`{"port":80,"weight":2}`, `{"port":81,"weight":3}`),
			now:    granted(`{"port":"81","weight":4}`, `{"port":80,"weight":5}`),
			want:   "server p0 / =9: 100.64.0.1:81*4 100.64.0.1:80*5\n", problems: []string{"JSON number", kept},
		},
		"of three ports, two that can't be read": {
			before:   granted(`{"port":80,"weight":2}`, `{"port":81,"weight":3}`, `{"port":82,"weight":4}`),
			now:      granted(`{"port":"80","weight":2}`, `{"prot":82,"weight":4}`, `{"port":81,"weight":3}`),
			want:     "server p0 / =9: 100.64.0.1:80*2 100.64.0.1:81*3 100.64.0.1:82*4\n",
			problems: []string{"JSON number", `did you mean "port"?`, kept, kept},
		},
		"a port that moved while another can't be read": {
			before: granted(`{"port":80,"weight":2}`, `{"port":81,"weight":3}`),
			now:    granted(`{"port":"80","weight":2}`, `{"port":90,"weight":3}`),
			want:   "server p0 / =5: 100.64.0.1:80*2 100.64.0.1:90*3\n", problems: []string{"JSON number", kept},
		},
		"of two ports of one service, one whose service can't be read": {
			before: granted(`{"service":"a","port":80,"weight":2}`, `{"service":"a","port":81,"weight":3}`),
			now:    granted(`{"service":"a_","port":80,"weight":7}`, `{"service":"a","port":81,"weight":3}`),
			want:   "a p0 / =10: 100.64.0.1:81*3 100.64.0.1:80*7\n", problems: []string{"service must be", kept},
		},
		"a drain counts beside a weight that can't be read": {
			before: device(1, "tag:weight-2"), now: device(1, "tag:weight-0", "tag:weight-O"),
			want: "server idle drained 100.64.0.1:8080*0\n", problems: []string{"tag:weight-…", kept},
		},
		"an attribute that can't be read hides no tag from sight": {
			before: Device{ID: "1", Addresses: []string{"100.64.0.1"}, Tags: []string{"tag:weight-2"}, Attributes: map[string]string{"weight": "0"}, Online: true},
			now:    Device{ID: "1", Addresses: []string{"100.64.0.1"}, Tags: []string{"tag:weight-2"}, Attributes: map[string]string{"weight": "none"}, Online: true},
			want:   "server idle drained 100.64.0.1:8080*0\n", problems: []string{"weight must be", kept},
		},
		"a good attribute makes a bad tag harmless": {
			before: device(1, "tag:weight-2"),
			now:    Device{ID: "1", Addresses: []string{"100.64.0.1"}, Tags: []string{"tag:weight-x"}, Attributes: map[string]string{"weight": "5"}, Online: true},
			want:   "server p0 / =5: 100.64.0.1:8080*5\n", problems: []string{"tag:weight-…"},
		},
		"a slip in the key is as good as one in the value": {
			before: device(1, "tag:weight-4", "tag:region-west"), now: device(1, "tag:weigth-4", "tag:region-east"),
			want:     "server p0 east/ =4: 100.64.0.1:8080*4\n",
			problems: []string{"did you mean tag:weight-4?", kept},
		},
		"nor does it move or wake up anybody": {
			before: device(1, "tag:service-hello", "tag:weight-0"), now: device(1, "tag:serivce-hello", "tag:wieght-0"),
			want:     "hello idle drained 100.64.0.1:8080*0\n",
			problems: []string{"did you mean tag:service-hello?", "did you mean tag:weight-0?", kept},
		},
		"a near miss beside what was meant changes nothing": {
			before: device(1, "tag:weight-4"), now: device(1, "tag:weigth-4", "tag:weight-5"),
			want: "server p0 / =5: 100.64.0.1:8080*5\n", problems: []string{"did you mean tag:weight-4?", kept},
		},
		"a grant's key with a slip": {
			before: granted(`{"service":"a","weight":4}`), now: granted(`{"service":"a","wieght":4}`),
			want: "a p0 / =4: 100.64.0.1:8080*4\n", problems: []string{`did you mean "weight"?`, kept},
		},
		"what was taken away beside a slip stays until that is fixed": {
			before: device(1, "tag:service-hello", "tag:weight-2"), now: device(1, "tag:weigth-2"),
			want: "hello p0 / =2: 100.64.0.1:8080*2\n", problems: []string{"did you mean tag:weight-2?", kept},
		},
		"an unknown key that is near to none": {
			before: granted(`{"service":"a","weight":4,"port":81}`), now: granted(`{"svc":"a","weight":3}`),
			want: "a p0 / =3: 100.64.0.1:81*3\n", problems: []string{`unknown key "svc": the keys are`, kept},
		},
		"an unknown key moves no device to another service": {
			before: granted(`{"service":"a","weight":4}`), now: granted(`{"service":"b","wieght":4}`),
			want: "a p0 / =4: 100.64.0.1:8080*4\n", problems: []string{`did you mean "weight"?`, kept},
		},
		"nor does it wake a drained one": {
			before: granted(`{"service":"a","weight":0}`), now: granted(`{"service":"a","drain":true}`),
			want: "a idle drained 100.64.0.1:8080*0\n", problems: []string{`unknown key "drain"`, kept},
		},
		"a further grant with an unknown key adds nothing": {
			before: granted(`{"service":"a"}`), now: granted(`{"service":"a"}`, `{"servcie":"b"}`),
			want: "a p0 / =1: 100.64.0.1:8080*1\n", problems: []string{`did you mean "service"?`},
		},
		"an unknown attribute": {
			before: device(1, "tag:weight-2"),
			now:    Device{ID: "1", Addresses: []string{"100.64.0.1"}, Tags: []string{"tag:weight-2"}, Attributes: map[string]string{"wieght": "0"}, Online: true},
			want:   "server p0 / =2: 100.64.0.1:8080*2\n", problems: []string{`did you mean "weight"?`, kept},
		},
		"a grant of a port alone is an endpoint": {
			before: device(2), now: granted(`{"port":80}`), want: "server p0 / =1: 100.64.0.1:80*1\n",
		},
		"tags that were taken away are believed": {
			before: device(1, "tag:weight-2", "tag:region-west"), now: device(1, "tag:region-west"),
		},
		"also if what is left of them can't be read": {
			before: device(1, "tag:weight-2", "tag:port-80"), now: device(1, "tag:port-x"), problems: []string{"tag:port-…"},
		},
		"a newcomer without a readable service is in none": {
			before: device(2), now: device(1, "tag:weight-2", "tag:service-a_"), problems: []string{"tag:service-…"},
		},
		"a newcomer with a bad weight and nothing else is no endpoint": {
			before: device(2), now: device(1, "tag:weight-x"), problems: []string{"tag:weight-…"},
		},
		"a newcomer's service with a bad weight has the usual one": {
			before: device(2), now: device(1, "tag:service-a", "tag:weight-x"), want: "a p0 / =1: 100.64.0.1:8080*1\n", problems: []string{"tag:weight-…"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := rules()
			was, _ := Build([]Device{test.before}, r)
			r.LastGood = lastGood(was.ByDevice())
			got, problems := Build([]Device{test.now}, r)
			if diff := cmp.Diff(test.want, lines(got)); diff != "" {
				t.Fatalf("topology (-want +got):\n%s", diff)
			}
			if len(problems) != len(test.problems) {
				t.Fatalf("got %d problems, want %d: %+v", len(problems), len(test.problems), problems)
			}
			for i, p := range problems {
				if !strings.Contains(p.Reason, test.problems[i]) {
					t.Errorf("problem %d: %q does not tell %q", i, p.Reason, test.problems[i])
				}
			}
			// A slip that lasts is no other slip.
			r.LastGood = lastGood(got.ByDevice())
			if again, _ := Build([]Device{test.now}, r); lines(again) != test.want {
				t.Errorf("built again: %q", lines(again))
			}
		})
	}
}
