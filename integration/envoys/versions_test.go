package envoys_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tailxds/tailxds/integration/repository"

	"github.com/tailxds/tailxds/integration/harness"
	"github.com/tailxds/tailxds/integration/shares"
)

// everyKey is a policy with every key of the schema and every value that is a word,
// in each combination that makes another kind of cluster, route or listener.
const everyKey = `
ingress: {port: 10000, allow: [tailnet, loopback, 10.0.0.0/8], trusted_hops: 1, access_log: all}
defaults:
  slow_start: 0s
  show_endpoint: true
  failover: []
  timeout: 9s
  attempt_timeout: 3s
  connect_timeout: 1s
  stream_idle_timeout: 1m
  idle_timeout: 3s
  retries: 2
  retry_buffer: 1MiB
  limits: {connections: 1000, pending: 1000, requests: 1000, retries: 1000}
  overprovisioning_factor: 150
  health_check: {protocol: auto, port: 8080, host: app.example.com, path: /healthz, expected_statuses: [200, 204-299], interval: 500ms, timeout: 400ms, unhealthy_threshold: 2, healthy_threshold: 1}
  outlier_detection: {consecutive_5xx: 50, consecutive_gateway_errors: 50, consecutive_connection_failures: 50, base_ejection_time: 1s, max_ejection_percent: 50}
services:
  weighted: {protocol: http1, load_balancing: round_robin, locality: weighted, slow_start: 1s, hosts: [app.example.com, "*.example.org"]}
  exact: {load_balancing: round_robin, locality: exact}
  nearest: {load_balancing: least_request, locality: nearest, slow_start: 1s}
  round: {locality: nearest}
  drawn: {load_balancing: random, locality: nearest}
  local: {locality: local, failover: [east]}
  least: {load_balancing: least_request, locality: local, slow_start: 1s}
  ring: {load_balancing: ring_hash, hash_on: {header: x-user}}
  maglev: {load_balancing: maglev, locality: exact, hash_on: {cookie: session}}
  source: {load_balancing: maglev, locality: local, hash_on: source}
  loaded: {load_balancing: client_side_weighted_round_robin, locality: weighted, slow_start: 1s}
  spread: {load_balancing: client_side_weighted_round_robin, locality: exact}
  near: {load_balancing: client_side_weighted_round_robin, locality: local}
  h2c: {protocol: http2, health_check: {protocol: http2}}
  calls: {protocol: grpc, health_check: {protocol: tcp}}
  routed:
    routes:
    - {path: /a/b, headers: {x-beta: "yes"}, service: exact}
    - {path: /split, split: {weighted: 1, ring: 3, nobody: 0}}
    - {path: /gone, service: nobody}
  asked: {protocol: grpc, health_check: {protocol: grpc, service: acme.Shop}}
  bytes: {protocol: tcp, listen: 5432, health_check: {protocol: tcp}}
`

// unhealthy are the services of everyKey whose servers do not pass its check.
const unhealthy = "asked"

// keysOf yields the paths of all keys that a part of the policy's schema has, and
// the words that they may have.
func keysOf(prefix string, schema map[string]any) map[string][]string {
	all := make(map[string][]string)
	properties, _ := schema["properties"].(map[string]any)
	for key, of := range properties {
		one, _ := of.(map[string]any)
		words := []string{}
		enum, _ := one["enum"].([]any)
		for _, word := range enum {
			words = append(words, fmt.Sprint(word))
		}
		all[prefix+key] = words
		for path, words := range keysOf(prefix+key+".", one) {
			all[path] = words
		}
		if items, ok := one["items"].(map[string]any); ok {
			for path, words := range keysOf(prefix+key+".", items) {
				all[path] = words
			}
		}
	}
	return all
}

// A key that is new in the schema must be in everyKey, too.
func TestEveryKey_schema_noneMissing(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/policy.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Properties  map[string]map[string]any
		Definitions map[string]map[string]any
	}
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	keys := keysOf("ingress.", schema.Properties["ingress"])
	maps.Copy(keys, keysOf("", schema.Definitions["service"]))
	if len(keys) < 40 {
		t.Fatalf("only %d keys: %v", len(keys), keys)
	}
	has := func(pattern string) bool { return regexp.MustCompile(`(?m)(^|[ {])` + pattern).MatchString(everyKey) }
	for path, words := range keys {
		key := path[strings.LastIndexByte(path, '.')+1:]
		if !has(key + ":") {
			t.Errorf("no %s", path)
		}
		for _, word := range words {
			if key != "access_log" && !has(key+": "+word+"\\b") { // the log is the listener's, in one way only
				t.Errorf("no %s: %s", path, word)
			}
		}
	}
}

// envoyProgram is Envoy by scripts/offline/envoy.
func envoyProgram(t *testing.T, version ...string) string {
	t.Helper()
	program, err := repository.Script(t.Context(), "offline/envoy", version...)
	if err != nil {
		t.Fatalf("get Envoy: %v", err)
	}
	return program
}

// The oldest Envoy that is supported and the one that we ship take a bootstrap with
// all that it can have, and a policy with every key, and do what it says.
func TestEnvoyVersions_bootstrapAndEveryKey_taken(t *testing.T) {
	for _, version := range []string{"oldest", "newest"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			of := programs
			if version == "oldest" {
				of.Envoy = envoyProgram(t, "oldest")
			}
			if buildErr != nil {
				t.Fatal(buildErr)
			}
			r := harness.New(t, of)
			takesEveryKey(t, r)
		})
	}
}

func takesEveryKey(t *testing.T, r *harness.Rig) {
	both := func(p *http.Protocols) { p.SetHTTP1(true); p.SetUnencryptedHTTP2(true) }
	a, b, otlp := r.ServerSpeaking("a", both), r.ServerSpeaking("b", both), r.Host("collector")
	heard := collectOn(t, otlp)

	services := strings.Split("weighted exact nearest round drawn local least ring maglev source loaded spread near h2c calls routed bytes "+unhealthy, " ")
	serving := func(h *harness.Host, region string, weight int) harness.Device {
		d := h.Device("tag:region-"+region, "tag:zone-z")
		for _, name := range services {
			d.Grants = append(d.Grants, map[string]any{"service": name, "weight": weight})
		}
		return d
	}
	control := r.ControlPlane(everyKey, serving(a.Host, "west", 1), serving(b.Host, "east", 3))
	entry := control.EnvoyBy("entry", "--control-plane", control.V4.String(), "--envoy-admin", "127.0.0.1:9901", "--region", "west", "--zone", "z", "--cluster", "c",
		"--envoy-metrics", "0.0.0.0:9902", "--otlp", net.JoinHostPort(otlp.V4.String(), "4317"), "--report-every", "1s")
	for _, name := range services {
		if name != unhealthy {
			entry.AwaitHealthy(name, 2)
		}
	}
	if rejected := control.Rejected(); rejected != "" {
		t.Errorf("Envoy rejected: %s", rejected)
	}
	entry.AwaitStats(map[string]int{"listener_manager.lds.update_rejected": 0, "cluster_manager.cds.update_rejected": 0})
	for _, name := range services {
		if slices.Contains([]string{unhealthy, "bytes"}, name) {
			continue
		}
		if tally := entry.Ask(10, harness.Get(entry.URL(10000), name)); tally.Failed > 0 {
			t.Errorf("%s: %d of 10 requests failed: %s", name, tally.Failed, tally.Reasons)
		}
	}
	want := shares.Shares{"a": 1, "b": 3}
	if err := entry.CheckShares(harness.Get(entry.URL(10000), "weighted"), want, shares.OneStepWrong(want)...); err != nil {
		t.Errorf("weighted: %v", err)
	}
	if status, _, err := entry.Once(harness.Get(strings.TrimSuffix(entry.URL(10000), "/")+"/gone", "routed")); status != http.StatusServiceUnavailable {
		t.Errorf("a rule to an unknown service: %d, %v", status, err)
	}
	r.Await("the collector is sent what Envoy measures", func() error {
		return heard.lacks("cloud.region=west", "cluster.endpoint.rq_total")
	})
	measured := regexp.MustCompile(`tailxds_endpoint_share_ratio\{[^}]*device="b"[^}]*kind="observed"[^}]*service="weighted"\} 0\.[1-9]`)
	r.Await("the control plane knows what Envoy measured", func() error {
		if text := control.Metrics(); !measured.MatchString(text) {
			return errors.New("no share of b is observed")
		}
		return nil
	})
}
