package policy

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"
	"pgregory.net/rapid"

	"github.com/tailxds/tailxds/internal/policy/policytest"
)

var update = flag.Bool("update", false, "rewrite the schema")

const schemaFile = "../../docs/policy.schema.json"

func TestSchema_file_isCurrent(t *testing.T) {
	text, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(schemaFile, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	written, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(text), string(written)); diff != "" {
		t.Errorf("%s is not what `tailxds schema` prints; run this test with -update:\n%s", schemaFile, diff)
	}
}

func policySchema(t testing.TB) *jsonschema.Schema {
	t.Helper()
	text, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("policy.json", document); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("policy.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// asEditors read a file.
func asEditors(t testing.TB, text string) any {
	t.Helper()
	var v any
	if err := yaml.Load([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// Every policy file that the project shows is good for the schema, as for the
// parser.
func TestSchema_examples_areTaken(t *testing.T) {
	s := policySchema(t)
	examples := 0
	try := func(name, text string) {
		examples++
		if _, err := Parse([]byte(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := s.Validate(asEditors(t, text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, pattern := range []string{"../../lab/policy/*.yaml", "../envoy/testdata/in/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, file := range files {
			try(file, read(t, file))
		}
	}
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	fence := regexp.MustCompile("(?s)\n```yaml\n(.*?)```")
	for _, page := range append(pages, "../../README.md") {
		for i, block := range fence.FindAllStringSubmatch(read(t, page), -1) {
			keys, mapping := asEditors(t, block[1]).(map[string]any)
			if mapping && len(keys) > 0 && !slices.ContainsFunc(slices.Collect(maps.Keys(keys)), func(k string) bool { return !slices.Contains([]string{"defaults", "ingress", "services"}, k) }) {
				try(fmt.Sprintf("%s, block %d", page, i+1), block[1])
			}
		}
	}
	if examples < 6 {
		t.Errorf("only %d examples were found", examples)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The schema has just the keys that the parser knows, and says what each means.
func TestSchema_keys_equalTheParsers(t *testing.T) {
	s := policySchema(t)
	described := maps.Clone(descriptions())
	for path, text := range described {
		if text == "" {
			t.Errorf("%s has no description", path)
		}
	}
	value := map[string]string{ // of a key, where the parser wants more than null
		"protocol": "http2", "listen": "5", "load_balancing": "random", "slow_start": "1s", "show_endpoint": "true", "locality": "exact",
		"timeout": "9s", "attempt_timeout": "1s", "connect_timeout": "1s", "retries": "1", "overprovisioning_factor": "150",
		"health_check.protocol": "tcp", "health_check.port": "9", "health_check.path": "/x", "health_check.host": "x.io:80", "health_check.service": "x", "health_check.interval": "3s",
		"health_check.timeout": "1s", "health_check.unhealthy_threshold": "3", "health_check.healthy_threshold": "3", "health_check.expected_statuses": "[204, 300-399]",
		"limits.connections": "1", "limits.pending": "1", "limits.requests": "1", "limits.retries": "1",
		"stream_idle_timeout": "1m", "idle_timeout": "1s", "retry_buffer": "1MiB", "outlier_detection.consecutive_5xx": "3",
		"outlier_detection.consecutive_gateway_errors": "3", "outlier_detection.consecutive_connection_failures": "3",
		"outlier_detection.base_ejection_time": "3s", "outlier_detection.max_ejection_percent": "3",
		"ingress.port": "1", "ingress.allow": "[tailnet]", "ingress.trusted_hops": "1", "ingress.access_log": "all",
	}
	keys := append(leaves("", valuesOf(Default().Defaults)), leaves("ingress.", Default().Ingress.Values())...)
	keys = append(keys, "routes")
	for _, path := range keys {
		section, rest, _ := strings.Cut(path, ".")
		text := "services: {a: {" + nested(path, value[path]) + "}}"
		wrong := "services: {a: {" + nested(path+"x", value[path]) + "}}"
		if section == "ingress" {
			text, wrong = "ingress: {"+nested(rest, value[path])+"}", "ingress: {"+nested(rest+"x", value[path])+"}"
		}
		if _, err := Parse([]byte(text)); err != nil && strings.Contains(err.Error(), "no such key") {
			t.Errorf("the parser does not know %s: %v", path, err)
		}
		if err := s.Validate(asEditors(t, text)); err != nil {
			t.Errorf("the schema refuses %s: %v", text, err)
		}
		if _, err := Parse([]byte(wrong)); err == nil || !strings.Contains(err.Error(), "no such key") {
			t.Errorf("the parser takes %s: %v", wrong, err)
		}
		if s.Validate(asEditors(t, wrong)) == nil {
			t.Errorf("the schema takes %s", wrong)
		}
		for at := path; at != ""; at = at[:max(0, strings.LastIndexByte(at, '.'))] {
			if _, ok := descriptions()[at]; !ok {
				t.Errorf("%s has no description", at)
			}
			delete(described, at)
		}
	}
	for _, path := range []string{"services", "routes.path", "routes.headers", "routes.service", "routes.split"} {
		delete(described, path)
	}
	if len(described) > 0 {
		t.Errorf("descriptions of no key: %v", slices.Collect(maps.Keys(described)))
	}
}

func leaves(prefix string, values map[string]string) []string {
	var all []string
	for key := range values {
		all = append(all, prefix+key)
	}
	slices.Sort(all)
	return all
}

// nested is a dotted path as YAML.
func nested(path, value string) string {
	steps := strings.Split(path, ".")
	if value == "" {
		value = "null"
	}
	return strings.Join(steps, ": {") + ": " + value + strings.Repeat("}", len(steps)-1)
}

// What either refuses of one value, both refuse.
func TestSchema_values_agreeWithTheParser(t *testing.T) {
	s := policySchema(t)
	for path, values := range map[string]struct{ good, bad []string }{
		"timeout":                           {[]string{"0", "0s", "1h30m", "1.5s", ".5s", "+1s"}, []string{"soon", "5", "-1s", "1", "[1s]", "true", "null", "500us", "1000us", "1ns"}},
		"connect_timeout":                   {[]string{"10ms", "1m"}, []string{"1 s", "s"}},
		"retries":                           {[]string{"0", "10"}, []string{"11", "-1", "1.5", "'1'", "many"}},
		"show_endpoint":                     {[]string{"true", "false"}, []string{"1", "maybe", "'true'"}},
		"protocol":                          {[]string{"http1", "http2", "grpc"}, []string{"http3", "HTTP1", "5"}},
		"load_balancing":                    {[]string{"round_robin", "least_request", "random", ByLoad}, []string{"maglv", "[]"}},
		"locality":                          {[]string{"weighted", "exact", "nearest", "local"}, []string{"near"}},
		"hosts":                             {[]string{"[]", "[a.io, '*.b.io']"}, []string{"a.io", "{a: b}", "[[a]]"}},
		"limits.requests":                   {[]string{"1", "4294967295"}, []string{"0", "4294967296"}},
		"overprovisioning_factor":           {[]string{"100", "10000"}, []string{"99", "10001"}},
		"health_check.protocol":             {[]string{"auto", "tcp"}, []string{"udp"}},
		"health_check.port":                 {[]string{"0", "65535"}, []string{"65536", "-1"}},
		"health_check.interval":             {[]string{"auto", "5s"}, []string{"often", "5"}},
		"health_check.expected_statuses":    {[]string{"[200, 204-299, 599]"}, []string{"[99]", "[600]", "200", "[x]", "[200-700]"}},
		"health_check.unhealthy_threshold":  {[]string{"1", "100"}, []string{"0", "101"}},
		"outlier_detection.consecutive_5xx": {[]string{"0", "10000"}, []string{"-1", "10001"}},
		"outlier_detection.consecutive_gateway_errors":      {[]string{"0", "10000"}, []string{"-1", "10001"}},
		"outlier_detection.consecutive_connection_failures": {[]string{"0", "10000"}, []string{"-1", "10001"}},
		"routes":  {[]string{"[]", "[{service: b}]", "[{path: /x, headers: {a: b}, split: {b: 1, c: 0}}]"}, []string{"{service: b}", "[b]", "[{service: b, pth: /x}]", "[{split: {b: -1}}]", "[{split: [b]}]"}},
		"hash_on": {nil, []string{"sauce", "{header: a, cookie: b}", "{header: 'a b'}", "{query: a}", "[source]"}},
	} {
		try := func(value string, want bool) {
			text := "services: {a: {" + nested(path, value) + "}}"
			if value == "null" {
				text = "services: {a: {" + path + ": }}"
			}
			_, byParser := Parse([]byte(text))
			bySchema := s.Validate(asEditors(t, text))
			if (byParser == nil) != want || (bySchema == nil) != want {
				t.Errorf("%s: want %v, the parser says %v, the schema %v", text, want, byParser, bySchema)
			}
		}
		for _, v := range values.good {
			try(v, true)
		}
		for _, v := range values.bad {
			try(v, false)
		}
	}
	for _, text := range []string{
		"service: {}", "- a", "services: {a_b: {}}", "services: {-a: {}}", "services: []", "ingress: {port: 0}", "ingress: {trusted_hops: 11}", "ingress: {access_log: some}",
		"defaults: {hosts: [a.io]}", "defaults: {routes: [{service: a}]}", "defaults: {protocol: tcp, listen: 1}", "defaults: {listen: 1}",
	} {
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("the parser takes %s", text)
		}
		if s.Validate(asEditors(t, text)) == nil {
			t.Errorf("the schema takes %s", text)
		}
	}
}

// Whatever the parser takes, the schema takes.
func TestSchema_anyValidPolicy_isTaken(t *testing.T) {
	s := policySchema(t)
	rapid.Check(t, func(r *rapid.T) {
		text := policytest.Draw(r)
		_, err := Parse([]byte(text))
		if refused := s.Validate(asEditors(t, text)); err == nil && refused != nil {
			r.Errorf("the schema refuses %s: %v", text, refused)
		}
	})
}
