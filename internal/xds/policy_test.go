package xds

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/tailxds/tailxds/internal/topology"
)

func TestParsePolicyTakesDefaultsForWhatIsLeftOut(t *testing.T) {
	p, err := ParsePolicy([]byte("defaults:\n  timeout: 30s\nservices:\n  API:\n    hosts: [Api.Example.com]\n    health_check:\n      interval: 5s\n  plain:\n"))
	if err != nil {
		t.Fatal(err)
	}
	api := p.For("api")
	if api.Timeout != Duration(30*time.Second) || api.HealthCheck.Interval != Interval(5*time.Second) || api.HealthCheck.Path != "/healthz" || api.Hosts[0] != "api.example.com" {
		t.Errorf("api: %+v", api)
	}
	if plain, other := p.For("plain"), p.For("other"); plain.Timeout != Duration(30*time.Second) || other.Timeout != Duration(30*time.Second) || other.HealthCheck.Interval != AutoInterval {
		t.Errorf("plain: %+v\nother: %+v", plain, other)
	}
}

func TestParsePolicyTakesAnEmptyFile(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "services: {}\n", "{}"} {
		if p, err := ParsePolicy([]byte(text)); err != nil || p.For("x").Retries != DefaultPolicy().Defaults.Retries {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestParsePolicyTellsWhatIsWrongAndWhere(t *testing.T) {
	tests := map[string]struct {
		text string
		want []string
	}{
		"syntax":            {"services:\n  a: [\n", []string{"parse policy"}},
		"unknown key":       {"services:\n  a:\n    timout: 3s\n", []string{"timout", "3"}},
		"unknown top key":   {"service: {}\n", []string{"service", "1"}},
		"duplicate key":     {"services:\n  a:\n    retries: 1\n    retries: 2\n", []string{"retries", "4"}},
		"bad duration":      {"services:\n  a:\n    timeout: soon\n", []string{"soon", "3"}},
		"out of range":      {"services:\n  a:\n    health_check:\n      path: /x\n      interval: 1ms\n", []string{"line 5", "health_check.interval", "auto, or from 100ms"}},
		"negative":          {"services:\n  a:\n    retries: -1\n", []string{"3"}},
		"bad enum":          {"defaults:\n  protocol: http3\n", []string{"line 2", "http1, http2, grpc or tcp"}},
		"bad host":          {"services:\n  a:\n    hosts: [x.io, 'x.*']\n", []string{"line 3", "plain domain names"}},
		"host not ASCII":    {"services:\n  a:\n    hosts: [bücher.example]\n", []string{"line 3", "plain domain names"}},
		"host, empty label": {"services:\n  a:\n    hosts: [x..io]\n", []string{"line 3", "plain domain names"}},
		"host of a service": {"services:\n  a:\n    hosts:\n    - x.io\n    - B\n  b:\n", []string{"line 5", "host b", "service b"}},
		"host twice in one": {"services:\n  a:\n    hosts: [x.io, X.io]\n", []string{"line 3", "x.io"}},
		"check protocol":    {"services:\n  a:\n    health_check:\n      protocol: udp\n", []string{"line 4", "auto, http1, http2, grpc or tcp"}},
		"check by grpc":     {"services:\n  a:\n    health_check:\n      protocol: grpc\n", []string{"line 4", "grpc needs protocol: grpc or http2"}},
		"path for tcp":      {"services:\n  a:\n    health_check:\n      protocol: tcp\n      path: /x\n", []string{"line 5", "a check connects"}},
		"status for tcp":    {"services:\n  a:\n    protocol: tcp\n    listen: 1\n    health_check:\n      expected_statuses: [204]\n", []string{"line 6", "a check connects"}},
		"status for grpc":   {"services:\n  a:\n    protocol: grpc\n    health_check:\n      expected_statuses: [204]\n", []string{"line 5", "health_check.service"}},
		"no status":         {"services:\n  a:\n    health_check:\n      expected_statuses: []\n", []string{"line 4", "must name a status"}},
		"bad status":        {"services:\n  a:\n    health_check:\n      expected_statuses: [200, 600]\n", []string{"line 4", "600", "200-299"}},
		"bad statuses":      {"services:\n  a:\n    health_check:\n      expected_statuses: [299-200]\n", []string{"line 4", "299-200"}},
		"check port":        {"services:\n  a:\n    health_check:\n      port: 65536\n", []string{"4"}},
		"by load, nearest":  {"services:\n  a:\n    load_balancing: client_side_weighted_round_robin\n    locality: nearest\n", []string{"line 4", "no nearest"}},
		"by load, tcp":      {"services:\n  a:\n    load_balancing: client_side_weighted_round_robin\n    protocol: tcp\n    listen: 1\n", []string{"line 3", "there are none"}},
		"by load, hash":     {"services:\n  a:\n    load_balancing: client_side_weighted_round_robin\n    hash_on: source\n", []string{"line 4", "ring_hash or maglev only"}},
		"header character":  {"services:\n  a:\n    health_check:\n      path: \"/a\\nb\"\n", []string{"line 4", "visible ASCII"}},
		"not UTF-8":         {"services:\n  a:\n    hosts: [x\xff.io]\n", []string{"line 3", "no UTF-8"}},
		"grpc with path":    {"services:\n  a:\n    protocol: grpc\n    health_check: {path: /x}\n", []string{"line 4", "health_check.service"}},
		"service over http": {"services:\n  a:\n    health_check:\n      service: x\n", []string{"line 4", "grpc only"}},
		"no requests":       {"services:\n  a:\n    limits:\n      requests: 0\n", []string{"line 4", "limits.requests", "from 1"}},
		"limit too large":   {"services:\n  a:\n    limits:\n      pending: 4294967296\n", []string{"4"}},
		"unknown limit":     {"defaults:\n  limits:\n    conections: 5\n", []string{"conections", "3"}},
		"ingress: key":      {"ingress:\n  ports: 1\n", []string{"ports", "2"}},
		"ingress: port":     {"ingress:\n  port: 65536\n", []string{"line 2", "from 1 to 65535"}},
		"ingress: hops":     {"ingress:\n  trusted_hops: 11\n", []string{"line 2", "from 0 to 10"}},
		"ingress: no hops":  {"ingress: {trusted_hops: -1}\n", []string{"line 1", "from 0 to 10"}},
		"ingress: log":      {"ingress:\n  access_log: some\n", []string{"line 2", "none, errors or all"}},
		"ingress: nobody":   {"ingress:\n  port: 1\n  allow: []\n", []string{"line 3", "who is let in"}},
		"ingress: word":     {"ingress:\n  allow:\n  - tailnet\n  - intranet\n", []string{"line 4", "intranet", "10.0.0.0/8"}},
		"ingress: host":     {"ingress:\n  allow: [10.1.0.0/8]\n", []string{"line 2", "did you mean 10.0.0.0/8"}},
		"ingress: mapped":   {"ingress:\n  allow: ['::ffff:10.0.0.0/104']\n", []string{"line 2", "must be"}},
		"bad host, spaces":  {"services:\n  a:\n    hosts: ['x y']\n", []string{"line 3", "plain domain names"}},
		"host twice":        {"services:\n  a:\n    hosts: [x.io]\n  b:\n    hosts: [X.io]\n", []string{"line 5", "x.io", "service a"}},
		"hosts for all":     {"defaults:\n  hosts: [x.io]\n", []string{"defaults", "one service"}},
		"bad service name":  {"services:\n  a_b: {}\n", []string{"a_b", "letters"}},
		"case twice":        {"services:\n  a: {}\n  A: {}\n", []string{"twice"}},
		"not a map":         {"- a\n", []string{"1"}},
		"breaks the parser": {"! 0000000000000000000000000000000000000", []string{"parse policy"}},
		"two documents":     {"services: {}\n---\nservices: {}\n", []string{"one YAML document"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := ParsePolicy([]byte(test.text))
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error does not tell %q:\n%v", want, err)
				}
			}
		})
	}
}

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
	small := topologyOf(map[string][]string{"d1": {"tag:weight-1"}})
	large := topologyOf(map[string][]string{"d1": {"tag:service-a"}, "d2": {"tag:service-b"}, "d3": {"tag:service-x"}, "d4": {"tag:service-web"}, "d5": {"tag:service-c"}})
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePolicy([]byte(text))
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without words")
			}
			return
		}
		var last *resources
		for _, top := range []topology.Topology{{}, small, large} {
			if last, err = build(top, p, "server", last); err != nil {
				t.Fatalf("%v", err)
			}
			for url, set := range last.byType {
				for name, r := range set {
					if _, err := proto.Marshal(r); err != nil {
						t.Fatalf("%s %s: %v", typeName(url), name, err)
					}
				}
			}
		}
	})
}

// The policy file that the documentation shows is whole, valid and says the
// defaults that hold.
func TestDocumentedPolicyIsTheDefault(t *testing.T) {
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(page), "```yaml\n")
	text, _, closed := strings.Cut(rest, "```")
	if !found || !closed {
		t.Fatal("docs/operations.md shows no policy file")
	}
	p, err := ParsePolicy([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(DefaultPolicy().Defaults, p.Defaults); diff != "" {
		t.Errorf("the documented defaults are not those that hold (-code +page):\n%s", diff)
	}
	if diff := cmp.Diff(DefaultPolicy().Ingress, p.Ingress); diff != "" {
		t.Errorf("the documented ingress is not the one that holds (-code +page):\n%s", diff)
	}
	for _, key := range append(yamlKeys(reflect.TypeFor[ServicePolicy]()), yamlKeys(reflect.TypeFor[IngressPolicy]())...) {
		if !strings.Contains(text, key+":") {
			t.Errorf("docs/operations.md does not show %s", key)
		}
	}
}

// yamlKeys are all keys of a struct's YAML form.
func yamlKeys(t reflect.Type) []string {
	var keys []string
	for i := range t.NumField() {
		keys = append(keys, t.Field(i).Tag.Get("yaml"))
		if f := t.Field(i).Type; f.Kind() == reflect.Struct {
			keys = append(keys, yamlKeys(f)...)
		}
	}
	return keys
}
