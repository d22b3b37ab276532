package k8s

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const controlPlaneChart = repository + "/deploy/controlplane/chart"

func renderControlPlane(t *testing.T, args ...string) result {
	t.Helper()
	return execute(t.Context(), "", program(t, "helm"), append([]string{"template", "envoy-control-plane", controlPlaneChart}, args...)...)
}

func TestChart_controlPlane_helmLintNoFault(t *testing.T) {
	if r := execute(t.Context(), "", program(t, "helm"), "lint", "--strict", controlPlaneChart); r.err != nil {
		t.Error(r.err)
	}
}

// The manifest is the chart's render, for who has no Helm, after a heading of
// its own.
func TestManifest_controlPlane_isTheChartRendered(t *testing.T) {
	r := renderControlPlane(t)
	if r.err != nil {
		t.Fatal(r.err)
	}
	var rendered strings.Builder
	for line := range strings.Lines(strings.TrimPrefix(r.stdout, "---\n")) {
		if !strings.HasPrefix(line, "# Source: ") {
			rendered.WriteString(line)
		}
	}
	file := repository + "/deploy/controlplane/manifest.yaml"
	was, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	heading, _, _ := strings.Cut(string(was), "---\n")
	want := heading + "---\n" + rendered.String()
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(was) != want {
		t.Errorf("%s is not what the chart renders; look at it with: go test ./k8s -run %s -update && git diff", file, t.Name())
	}
}

func TestChart_controlPlaneValues_renderWhatTheySay(t *testing.T) {
	r := renderControlPlane(t,
		"--set", "replica=second", "--set", "first=false", "--set", "hostname=tsnet-dynamic-eds-2", "--set", "peers={tsnet-dynamic-eds,tsnet-dynamic-eds-2}",
		"--set", "policy.defaults.retries=1", "--set", "settings.TS_ENVOY_CONTROL_URL=https://headscale.example",
		"--set", "image.repository=registry.example/control-plane", "--set", "image.digest=sha256:"+strings.Repeat("0123456789abcdef", 4),
		"--set", "imagePullSecrets[0].name=pull", "--set", "nodeSelector.disk=ssd", "--set", "authSecret=other",
	)
	if r.err != nil {
		t.Fatal(r.err)
	}
	golden(t, "controlplane-second.yaml", r.stdout)
	if strings.Contains(r.stdout, "kind: NetworkPolicy") || strings.Contains(r.stdout, "kind: PodDisruptionBudget") {
		t.Error("a second control plane makes what is for both again")
	}
}

// Of two control planes each names both, by chart and by kustomization: one that
// names none would keep its operators' drains to itself.
func TestChart_twoControlPlanes_eachNamesBoth(t *testing.T) {
	const both = "tsnet-dynamic-eds,tsnet-dynamic-eds-2"
	const env = "            - name: TS_ENVOY_PEER\n              value: " + both + "\n"
	for name, args := range map[string][]string{
		"the first":  {"--set", "peers={" + both + "}"},
		"the second": {"--set", "peers={" + both + "}", "--set", "replica=second", "--set", "first=false"},
	} {
		if r := renderControlPlane(t, args...); r.err != nil || strings.Count(r.stdout, env) != 1 {
			t.Errorf("%s does not name both: %v\n%s", name, r.err, r.stdout)
		}
	}
	if r := renderControlPlane(t); r.err != nil || strings.Contains(r.stdout, "TS_ENVOY_PEER") {
		t.Errorf("one alone names another: %v", r.err)
	}
	second := []string{"--set", "replica=second", "--set", "first=false"}
	if r := renderControlPlane(t, second...); r.err == nil || !strings.Contains(r.stderr, "peers is needed where first is false: name all control planes") {
		t.Errorf("a second that names none: %v, %s", r.err, r.stderr)
	}
	if r := renderControlPlane(t, append(second, "--set", "settings.TS_ENVOY_PEER=a\\,b")...); r.err != nil || !strings.Contains(r.stdout, "value: \"a,b\"\n") {
		t.Errorf("named by a setting: %v\n%s", r.err, r.stdout)
	}
	text, err := os.ReadFile(repository + "/deploy/controlplane-second/kustomization.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if want := `{name: TS_ENVOY_PEER, value: "` + both + `"}`; !strings.Contains(string(text), want) || !strings.Contains(string(text), "set env deployment/envoy-control-plane TS_ENVOY_PEER="+both+"\n") {
		t.Error("the kustomization does not name both, or does not say how to name them to the first")
	}
}

func TestChart_controlPlaneSchema_refusesWrongValues(t *testing.T) {
	for set, says := range map[string]string{
		"peers={A b}":               "peers",
		"peers=a":                   "peers",
		"hostname=a.b":              "hostname",
		"settings.lower=1":          "lower",
		"replicas=2":                "replicas",
		"authSecret=":               "authSecret",
		"image.digest=latest":       "digest",
		"policy=text":               "policy",
		"monitoringNamespace=":      "monitoringNamespace",
		"podAnnotations.number=1":   "podAnnotations",
		"imagePullPolicy=Sometimes": "imagePullPolicy",
	} {
		if r := renderControlPlane(t, "--set", set); r.err == nil || !strings.Contains(r.stderr, says) {
			t.Errorf("--set %s: %v, want a refusal that names %s", set, r.err, says)
		}
	}
}

// Charts of a release have its version, and its images in place of a working
// tree's.
func TestChart_release_hasVersionAndImages(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", filepath.Dir(program(t, "helm"))+":"+os.Getenv("PATH"))
	r := execute(t.Context(), "", repository+"/scripts/charts", "v1.2.3", "registry.example/tailxds", dir)
	if r.err != nil {
		t.Fatal(r.err)
	}
	for name, args := range map[string][]string{
		"envoy-control-plane": nil, "ts-envoy-server": {"--set", "controlPlaneHost=a.example"},
	} {
		r := execute(t.Context(), "", program(t, "helm"), append([]string{"template", "any", filepath.Join(dir, name+"-1.2.3.tgz")}, args...)...)
		if r.err != nil {
			t.Fatal(r.err)
		}
		if !strings.Contains(r.stdout, "image: registry.example/tailxds/control-plane:1.2.3\n") || strings.Contains(r.stdout, ":dev") {
			t.Errorf("%s has other images than the release's:\n%s", name, r.stdout)
		}
	}
	if r := execute(t.Context(), "", repository+"/scripts/charts", "1.2.3", "registry.example", dir); r.err == nil {
		t.Error("a version without its v was taken")
	}
}
