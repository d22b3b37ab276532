package envoy

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/tailxds/tailxds/internal/policy"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/topology/topologytest"
	"github.com/tailxds/tailxds/internal/yamldoc"
)

// Whatever is taken makes resources that Envoy takes, with every topology: a
// policy that parses must not stand in the way of a later change.
func FuzzParsePolicy(f *testing.F) {
	f.Add("defaults:\n  timeout: 30s\nservices:\n  api:\n    hosts: [a.b]\n")
	f.Add("services: {a: null, b: {health_check: {path: /x}}}")
	f.Add("services: {a: {hosts: [server, '*.x', x, a]}, web: {protocol: grpc, health_check: {service: a.B}}}")
	f.Add("services: {a: {routes: [{path: /x/, headers: {b: c}, split: {a: 1, b: 0}}, {service: web}], health_check: {protocol: tcp, port: 1}}}")
	f.Add("services: {a: {load_balancing: client_side_weighted_round_robin, slow_start: 1s, health_check: {expected_statuses: [200-204, 304]}}}")
	f.Add("ingress: {port: 1, allow: [tailnet, tailnet, 10.0.0.0/8, 10.1.0.0/16, 0.0.0.0/0, '::1', fd00::/8]}")
	f.Add("defaults: {limits: {requests: 1}}\nservices: {a: {hosts: [xn--bcher-kva.example]}}")
	small := topologytest.Of(map[string][]string{"d1": {"tag:weight-1"}})
	large := topologytest.Of(map[string][]string{"d1": {"tag:service-a"}, "d2": {"tag:service-b"}, "d3": {"tag:service-x"}, "d4": {"tag:service-web"}, "d5": {"tag:service-c"}})
	f.Fuzz(func(t *testing.T, text string) {
		p, err := policy.Parse([]byte(text))
		if err != nil {
			var faults yamldoc.Faults
			if !errors.As(err, &faults) {
				t.Fatalf("it was read, and can't be built: %v", err)
			}
			for i, f := range faults {
				if f.Line < 1 || f.Line > 1+strings.Count(text, "\n")+strings.Count(text, "\r")+strings.Count(text, "\u0085")+strings.Count(text, "\u2028")+strings.Count(text, "\u2029") || f.Column < 1 || f.Reason == "" || slices.Contains(faults[:i], f) {
					t.Errorf("%+v among %v", f, err)
				}
			}
			return
		}
		var last *Resources
		for _, top := range []topology.Topology{{}, small, large} {
			if last, err = build(top, p, "server", last); err != nil {
				t.Fatalf("%v", err)
			}
			for url, set := range last.all {
				for name, r := range set {
					if _, err := proto.Marshal(r); err != nil {
						t.Fatalf("%s %s: %v", url, name, err)
					}
				}
			}
		}
	})
}
