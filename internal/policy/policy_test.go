package policy

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tailxds/tailxds/internal/yamldoc"
)

func TestParse_leftOut_takesDefaults(t *testing.T) {
	p, err := Parse([]byte("defaults:\n  timeout: 30s\nservices:\n  API:\n    hosts: [Api.Example.com]\n    health_check:\n      interval: 5s\n  plain:\n"))
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

func TestParse_emptyFile_isDefault(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "services: {}\n", "{}"} {
		if p, err := Parse([]byte(text)); err != nil || p.For("x").Retries != Default().Defaults.Retries {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestParse_invalid_saysWhatAndWhere(t *testing.T) {
	tests := map[string]struct {
		text string
		want []string
	}{
		"syntax":            {"services:\n  a: [\n", []string{"line 3", "no YAML"}},
		"unknown key":       {"services:\n  a:\n    timout: 3s\n", []string{"line 3: services.a.timout", "did you mean timeout?"}},
		"unknown top key":   {"service: {}\n", []string{"line 1: service:", "did you mean services?"}},
		"duplicate key":     {"services:\n  a:\n    retries: 1\n    retries: 2\n", []string{"line 4: services.a.retries", "in line 3 already"}},
		"below 1 ms":        {"services:\n  a:\n    timeout: 500us\n", []string{"line 3", "whole milliseconds", "500us"}},
		"part of 1 ms":      {"services:\n  a:\n    health_check: {timeout: 1.0005s}\n", []string{"line 3", "whole milliseconds"}},
		"interval of us":    {"services:\n  a:\n    health_check: {interval: 200000us}\n", []string{"line 3", "whole milliseconds"}},
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
		"check host":        {"services:\n  a:\n    health_check:\n      host: '*.x.io'\n", []string{"line 4", "health_check.host", "host name"}},
		"check host, port":  {"services:\n  a:\n    health_check:\n      host: x.io:http\n", []string{"line 4", "health_check.host", "host name"}},
		"host for tcp":      {"services:\n  a:\n    protocol: tcp\n    listen: 1\n    health_check:\n      host: x.io\n", []string{"line 6", "a check connects"}},
		"5xx of tcp":        {"services:\n  a:\n    protocol: tcp\n    listen: 1\n    outlier_detection:\n      consecutive_5xx: 5\n", []string{"line 6", "consecutive_connection_failures"}},
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
		"not a map":         {"- a\n", []string{"line 1", "keys and their values"}},
		"no value":          {"services:\n  a:\n    timeout:\n", []string{"line 3", "has no value"}},
		"no number":         {"services:\n  a:\n    retries: many\n", []string{"line 3", `from 0 to 10, and not "many"`}},
		"too large a port":  {"ingress:\n  port: 1000000\n", []string{"line 2", `from 1 to 65535, and not "1000000"`}},
		"a list for one":    {"services:\n  a:\n    timeout: [1s]\n", []string{"line 3", "one value, and not a list"}},
		"one for a list":    {"services:\n  a:\n    hosts: x.io\n", []string{"line 3", "must be a list"}},
		"neither bool":      {"defaults:\n  show_endpoint: maybe\n", []string{"line 2", "true or false"}},
		"control character": {"services:\n  # \x1b[2J\n  a: {}\n", []string{"line 2", "U+001B"}},
		"refers to itself":  {"services: &a\n  a: *a\n", []string{"line 2", "contains itself"}},
		"nobody's anchor":   {"services: *a\n", []string{"line 1", "unknown anchor"}},
		"very deep":         {"services: " + strings.Repeat("[", 100_000), []string{"line 1", "exceeded max depth"}},
		"breaks the parser": {"! 0000000000000000000000000000000000000", []string{"line 1", "keys and their values"}},
		"two documents":     {"services: {}\n---\nservices: {}\n", []string{"line 2", "second YAML document"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(test.text))
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

// All that is wrong is told at once, each with its place, and nothing that only
// follows from it.
func TestParse_severalFaults_saysAll(t *testing.T) {
	_, err := Parse([]byte(`ingress:
  port: 0
  allow: [intranet, tailnet, 10.1.0.0/8]
services:
  a_b: {retries: 11}
  hello:
    timout: 3s
    timeout: soon
    load_balancing: maglev
    load_balancing: random
    routes:
    - {path: x, headers: {Host: y, "a b": z}}
    - {service: shop, split: {b_c: 1, d: 10001}}
    - service: shop
  shop:
    hosts: [x.io, server..io]
    health_check: {interval: 1ms, protocol: udp, path: x, port: 65536}
  tcp: {protocol: tcp, timeout: 3s, show_endpoint: true}
  web: {hosts: [x.io, y.io, hello], hash_on: source, attempt_timeout: 20s}
  www: {hosts: [y.io]}
service: {}
`))
	var faults yamldoc.Faults
	if !errors.As(err, &faults) {
		t.Fatalf("%v", err)
	}
	var got []string
	for _, f := range faults {
		got = append(got, fmt.Sprintf("%d:%d %s", f.Line, f.Column, f.Text()))
	}
	want := []string{
		"2:9 ingress.port: must be from 1 to 65535",
		`3:11 ingress.allow[0]: "intranet" must be tailnet, loopback, or a network such as 10.0.0.0/8`,
		`3:30 ingress.allow[2]: "10.1.0.0/8" is no network; did you mean 10.0.0.0/8?`,
		"5:3 services.a_b: the service name \"a_b\" must be 1 to 63 letters, digits and inner dashes",
		"5:18 services.a_b.retries: must be from 0 to 10",
		"7:5 services.hello.timout: there is no such key; did you mean timeout?",
		`8:14 services.hello.timeout: must be a duration such as 500ms, 5s or 2m, and not "soon"`,
		"10:5 services.hello.load_balancing: stands there twice, in line 9 already",
		"12:7 services.hello.routes[0]: a rule needs either service, which gets all that matches, or split, which names several and their weights",
		"12:14 services.hello.routes[0].path: must begin with / and hold visible ASCII without ?, # and \\: encode what else is wanted as %XX",
		"12:33 services.hello.routes[0].headers.Host: the header host is what hosts are for: name a service that has the host",
		`12:43 services.hello.routes[0].headers.a b: "a b" can't be the name of a header`,
		"13:7 services.hello.routes[1]: a rule needs either service, which gets all that matches, or split, which names several and their weights",
		"13:36 services.hello.routes[1].split.b_c: the service name \"b_c\" must be 1 to 63 letters, digits and inner dashes",
		"13:42 services.hello.routes[1].split.d: a weight must be from 0 to 10000",
		"16:12 services.shop.hosts: must be plain domain names without port, such as app.example.com or *.example.com",
		"17:30 services.shop.health_check.interval: must be auto, or from 100ms to 1h in whole milliseconds",
		"17:45 services.shop.health_check.protocol: must be auto, http1, http2, grpc or tcp",
		"17:56 services.shop.health_check.path: must begin with / and hold visible ASCII only: encode what else is wanted as %XX",
		`17:65 services.shop.health_check.port: must be a whole number from 0 to 65535, and not "65536"`,
		"18:19 services.tcp.protocol: tcp needs listen, the port on which Envoys take its connections",
		"18:33 services.tcp.timeout: has no meaning with protocol: tcp",
		"18:52 services.tcp.show_endpoint: has no meaning with protocol: tcp",
		"19:46 services.web.hash_on: goes with load_balancing: ring_hash or maglev only",
		"19:71 services.web.attempt_timeout: must not be longer than timeout",
		"21:1 service: there is no such key; did you mean services?",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// What is taken over from bad defaults is told once, where it stands.
func TestParse_badDefaults_areNoFaultOfAService(t *testing.T) {
	_, err := Parse([]byte("services: {a: {hash_on: source}, b: {}}\ndefaults: {load_balancing: maglv}\n"))
	const want = "line 2: defaults.load_balancing: must be round_robin, least_request, random, ring_hash, maglev or client_side_weighted_round_robin"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestParse_references_areFollowed(t *testing.T) {
	p := parsed(t, "services:\n  a: &a\n    retries: 1\n    timeout: 9s\n    health_check: &check {port: 9}\n  b:\n    <<: *a\n    retries: 2\n  c: {health_check: *check}\n")
	if b := p.For("b"); b.Retries != 2 || b.Timeout != Duration(9*time.Second) || b.HealthCheck.Port != 9 || p.For("c").HealthCheck.Port != 9 {
		t.Errorf("b: %+v\nc: %+v", b, p.For("c"))
	}
	_, err := Parse([]byte("services:\n  a: &a\n    failover: [x]\n  b: {<<: [*a], locality: local}\n  c: *a\n"))
	if err == nil || !strings.Contains(err.Error(), "services.a.failover") || !strings.Contains(err.Error(), "services.c.failover") || strings.Contains(err.Error(), "services.b") {
		t.Errorf("got %v", err)
	}
}

// The policy file that the documentation shows is whole, valid and says the
// defaults that hold.
func TestDefault_documentation_isEqual(t *testing.T) {
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(page), "```yaml\n")
	text, _, closed := strings.Cut(rest, "```")
	if !found || !closed {
		t.Fatal("docs/operations.md shows no policy file")
	}
	p, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Default().Defaults, p.Defaults); diff != "" {
		t.Errorf("the documented defaults are not those that hold (-code +page):\n%s", diff)
	}
	if diff := cmp.Diff(Default().Ingress, p.Ingress); diff != "" {
		t.Errorf("the documented ingress is not the one that holds (-code +page):\n%s", diff)
	}
	for _, key := range append(yamlKeys(reflect.TypeFor[Service]()), yamlKeys(reflect.TypeFor[Ingress]())...) {
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

// parsed is the policy of a file without faults.
func parsed(t *testing.T, text string) Policy {
	t.Helper()
	p, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}
