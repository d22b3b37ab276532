package envoys_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tailxds/tailxds/integration/repository"

	"go.yaml.in/yaml/v3"

	"github.com/tailxds/tailxds/integration/harness"
)

const monitoring = "../../deploy/monitoring/"

// program is a program of a Debian package. It skips the test where that can't be
// had.
func program(t *testing.T, name, of string) string {
	t.Helper()
	out, err := repository.Script(t.Context(), "program", name, of)
	if err != nil {
		t.Skipf("no %s can be had: %v", name, err)
	}
	return out
}

// scrapeHere is the shipped configuration, with the address of each job's target
// in place of where it finds it, and the rules.
func scrapeHere(t *testing.T, targets map[string][]map[string]any) string {
	t.Helper()
	text, err := os.ReadFile(monitoring + "scrape.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var shipped struct {
		Jobs []map[string]any `yaml:"scrape_configs"`
	}
	if err := yaml.Unmarshal(text, &shipped); err != nil {
		t.Fatal(err)
	}
	for _, job := range shipped.Jobs {
		of, known := targets[fmt.Sprint(job["job_name"])]
		if !known {
			t.Errorf("of the job %s nothing is known here", job["job_name"])
		}
		if pods, is := job["kubernetes_sd_configs"]; is {
			assertFindsPods(t, pods)
			delete(job, "kubernetes_sd_configs")
		}
		job["static_configs"] = of
	}
	if len(shipped.Jobs) != len(targets) {
		t.Errorf("there are %d jobs, want %d", len(shipped.Jobs), len(targets))
	}
	rules, err := filepath.Abs(monitoring + "rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	here, err := yaml.Marshal(map[string]any{
		"global":         map[string]string{"scrape_interval": "1s", "evaluation_interval": "1s"},
		"rule_files":     []string{rules},
		"scrape_configs": shipped.Jobs,
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(here)
}

// assertFindsPods finds that what Prometheus looks for on Kubernetes is what the
// control plane's manifest has. Debian's Prometheus can't look for it.
func assertFindsPods(t *testing.T, pods any) {
	t.Helper()
	if want := "[map[role:pod selectors:[map[label:app=envoy-control-plane role:pod]]]]"; fmt.Sprint(pods) != want {
		t.Errorf("on Kubernetes it looks for %v, want %v", pods, want)
	}
	manifest, err := os.ReadFile("../../deploy/controlplane/manifest.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, has := range []string{`(?m)^ {6}labels:\n {8}app: envoy-control-plane$`, `- name: admin\n +containerPort: 9090\n`} {
		if !regexp.MustCompile(has).Match(manifest) {
			t.Errorf("the manifest has no %s", has)
		}
	}
}

// A real Prometheus scrapes a control plane by each of the shipped jobs, finds
// what the rules ask for, and no reason for an alert.
func TestPrometheus_shippedConfiguration_scrapes(t *testing.T) {
	t.Parallel()
	prometheus := program(t, "prometheus", "prometheus")
	r := newRig(t)
	a := r.Server("a")
	control := r.ControlPlane("", a.Device("tag:weight-1"))
	control.Stop()
	// What scrape.yaml says that Docker wants.
	control.Start("--admin", ":9090", "--admin-host", "control-plane")
	control.EnvoyOn(a.Host).AwaitHealthy("server", 1)
	if status, _, err := a.Once(harness.Get(control.URL(9090)+"metrics", "control-plane:9090")); err != nil || status != http.StatusOK {
		t.Errorf("under the name of the container: %d, %v", status, err)
	}

	pod := func(address, port string) map[string]any {
		return map[string]any{"targets": []string{address}, "labels": map[string]string{
			"__meta_kubernetes_pod_container_port_name": port, "__meta_kubernetes_namespace": "tailxds", "__meta_kubernetes_pod_name": "envoy-control-plane-0",
		}}
	}
	v4, v6 := control.V4.String(), "["+control.V6.String()+"]"
	config := scrapeHere(t, map[string][]map[string]any{
		"tailxds-systemd":    {{"targets": []string{"127.0.0.1:9090"}}},
		"tailxds-docker":     {{"targets": []string{v4 + ":9090"}}},
		"tailxds-kubernetes": {pod(v6+":9090", "admin"), pod(v6+":18000", "xds")},
	})
	control.Program(prometheus, config, "--config.file", "--storage.tsdb.path="+t.TempDir(), "--web.listen-address=127.0.0.1:9099")
	assertUp(t, r, control, map[string]string{"127.0.0.1:9090": "", v4 + ":9090": "", v6 + ":9090": "tailxds/envoy-control-plane-0"})
	assertRulesRun(t, r, control)
}

// prometheusSays is a page of its API.
func prometheusSays(on *harness.ControlPlane, path string, into any) error {
	status, body, err := on.Once(harness.Get("http://127.0.0.1:9099/api/v1/"+path, ""))
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("status %d: %s", status, body)
	}
	return errors.Join(err, json.Unmarshal([]byte(body), into))
}

// assertUp waits until just these targets are scraped well, as the job that the
// rules want; each has a namespace and pod, or none.
func assertUp(t *testing.T, r *harness.Rig, on *harness.ControlPlane, want map[string]string) {
	t.Helper()
	r.Await("Prometheus scrapes each", func() error {
		var page struct {
			Data struct {
				Active []struct {
					Health    string
					LastError string
					Labels    struct{ Job, Instance, Namespace, Pod string }
				} `json:"activeTargets"`
			}
		}
		if err := prometheusSays(on, "targets?state=active", &page); err != nil {
			return err
		}
		if len(page.Data.Active) != len(want) {
			return fmt.Errorf("there are %d targets: %+v", len(page.Data.Active), page.Data.Active)
		}
		for _, target := range page.Data.Active {
			l := target.Labels
			of, known := want[l.Instance]
			if !known || target.Health != "up" || l.Job != "tailxds" || strings.Trim(l.Namespace+"/"+l.Pod, "/") != of {
				return fmt.Errorf("%+v", target)
			}
		}
		return nil
	})
}

// assertRulesRun waits until each rule was evaluated, and finds none that fires.
func assertRulesRun(t *testing.T, r *harness.Rig, on *harness.ControlPlane) {
	t.Helper()
	var wrong []string
	r.Await("Prometheus evaluates each rule", func() error {
		var page struct {
			Data struct {
				Groups []struct {
					Rules []struct{ Name, Health, State, LastError string }
				}
			}
		}
		if err := prometheusSays(on, "rules", &page); err != nil {
			return err
		}
		wrong = nil
		seen := 0
		for _, group := range page.Data.Groups {
			for _, rule := range group.Rules {
				seen++
				if rule.Health == "unknown" {
					return fmt.Errorf("%s was not evaluated yet", rule.Name)
				}
				if rule.Health != "ok" || rule.State != "inactive" {
					wrong = append(wrong, fmt.Sprintf("%+v", rule))
				}
			}
		}
		if seen < 10 {
			return fmt.Errorf("there are %d rules", seen)
		}
		return nil
	})
	if slices.Sort(wrong); len(wrong) > 0 {
		t.Errorf("while all is well: %s", strings.Join(wrong, "\n"))
	}
}
