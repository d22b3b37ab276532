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

func TestChartOfTheControlPlaneLints(t *testing.T) {
	if r := execute(t.Context(), "", program(t, "helm"), "lint", "--strict", controlPlaneChart); r.err != nil {
		t.Error(r.err)
	}
}

// The manifest is the chart's render, for who has no Helm, after a heading of
// its own.
func TestManifestIsTheChart(t *testing.T) {
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

func TestChartOfTheControlPlaneTakesItsValues(t *testing.T) {
	r := renderControlPlane(t,
		"--set", "replica=second", "--set", "first=false", "--set", "hostname=tsnet-dynamic-eds-2",
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

func TestChartOfTheControlPlaneRefuses(t *testing.T) {
	for set, says := range map[string]string{
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
func TestChartsOfARelease(t *testing.T) {
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
