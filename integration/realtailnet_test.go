package integration_test

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// composeConfig are the fields of `docker compose config` that tell the lab's
// own tailnet from a real one.
type composeConfig struct {
	Services map[string]struct {
		Scale       *int
		NetworkMode string `json:"network_mode"`
		Environment map[string]*string
		Ports       []port
	}
	Networks map[string]struct{ Internal bool }
}

// port is one that the machine of the lab is given.
type port struct {
	HostIP    string `json:"host_ip"`
	Published string
	Target    int
}

func (c composeConfig) setting(service, name string) string {
	if value := c.Services[service].Environment[name]; value != nil {
		return *value
	}
	return ""
}

// running are the services that at least one container is started of.
func (c composeConfig) running() []string {
	var names []string
	for name, service := range c.Services {
		if service.Scale == nil || *service.Scale > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// render runs `docker compose config` with the given .env.
func render(t *testing.T, settings string) composeConfig {
	t.Helper()
	forgetSettings(t)
	path := filepath.Join(t.TempDir(), ".env")
	if err := os.WriteFile(path, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), "docker", "compose", "--env-file", path, "--file", composeFile, "config", "--format", "json")
	var stderr strings.Builder
	command.Stderr = &stderr
	output, err := command.Output()
	if err != nil {
		t.Fatalf("docker compose config: %v: %s", err, &stderr)
	}
	var config composeConfig
	if err := json.Unmarshal(output, &config); err != nil {
		t.Fatal(err)
	}
	return config
}

// realSettings are .env.example's for a real tailnet, with their comment signs
// taken off, as it tells the reader to.
func realSettings(t *testing.T) string {
	t.Helper()
	example, err := os.ReadFile("../.env.example")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(example), "# --- A real tailnet")
	if !found {
		t.Fatal(".env.example has no section about a real tailnet")
	}
	lines := regexp.MustCompile(`(?m)^#([A-Z_]+=.*)$`).FindAllStringSubmatch(section, -1)
	var settings []string
	for _, line := range lines {
		settings = append(settings, line[1])
	}
	text := strings.Join(settings, "\n") + "\n"
	if !strings.Contains(text, "TS_ENVOY_AUTHKEY=tskey-auth-") {
		t.Fatalf(".env.example shows no auth key:\n%s", text)
	}
	return text
}

func TestRealTailnet_dotEnv_suffices(t *testing.T) {
	config := render(t, realSettings(t))
	running := config.running()
	for _, service := range []string{"headscale", "keys"} {
		if slices.Contains(running, service) {
			t.Errorf("%s is started", service)
		}
	}
	for _, service := range []string{"control-plane", "laptop", "west-1", "west-2", "east-1", "east-2"} {
		if !slices.Contains(running, service) {
			t.Errorf("%s is not started", service)
		}
	}
	for name, network := range config.Networks {
		if network.Internal {
			t.Errorf("network %s does not lead out", name)
		}
	}
	for service, tags := range map[string]string{
		"west-1": "tag:region-west,tag:weight-1", "west-2": "tag:region-west,tag:weight-1",
		"east-1": "tag:region-east,tag:weight-2", "east-2": "tag:region-east,tag:weight-2",
		"laptop": "tag:laptop,tag:region-west",
	} {
		arguments := strings.Fields(config.setting(service, "TS_EXTRA_ARGS"))
		for _, want := range []string{"--advertise-tags=" + tags, "--login-server=https://controlplane.tailscale.com"} {
			if !slices.Contains(arguments, want) {
				t.Errorf("%s joins with %v, without %s", service, arguments, want)
			}
		}
		if key := config.setting(service, "TS_AUTHKEY"); !strings.HasPrefix(key, "tskey-auth-") {
			t.Errorf("%s joins with the key %q", service, key)
		}
	}
	for name, want := range map[string]string{
		"TS_ENVOY_AUTHKEY":        "tskey-auth-...",
		"TS_ENVOY_ADVERTISE_TAGS": "tag:control-plane",
		"TS_ENVOY_CONTROL_URL":    "https://controlplane.tailscale.com",
		"TS_ENVOY_API_TOKEN":      "", // not headscale's
	} {
		if got := config.setting("control-plane", name); got != want {
			t.Errorf("the control plane has %s=%q, want %q", name, got, want)
		}
	}
}

// Without .env the same file is the lab: what the test above denies must be there.
func TestLab_noSettings_isComplete(t *testing.T) {
	config := render(t, "")
	if running := config.running(); !slices.Contains(running, "headscale") || !slices.Contains(running, "keys") {
		t.Errorf("only %v are started", running)
	}
	for name, network := range config.Networks {
		if network.Internal == (name == edge) {
			t.Errorf("network %s leads out: %t", name, !network.Internal)
		}
	}
	for service := range config.Services {
		if arguments := config.setting(service, "TS_EXTRA_ARGS"); strings.Contains(arguments, "--advertise-tags") {
			t.Errorf("%s asks for tags that its key fixes: %s", service, arguments)
		}
		for _, name := range []string{"TS_AUTHKEY", "TS_ENVOY_AUTHKEY", "TS_ENVOY_API_TOKEN"} {
			if value := config.setting(service, name); value != "" && !strings.HasPrefix(value, "file:/keys/") {
				t.Errorf("%s has %s=%s, which was not minted in the lab", service, name, value)
			}
		}
	}
}

// What is published is for the lab's own machine alone, and can be moved aside.
func TestLab_publishedPorts_loopbackOnly(t *testing.T) {
	for settings, want := range map[string]map[string]port{
		"": {
			"laptop": {"127.0.0.1", "10000", 10000},
			"page":   {"127.0.0.1", "8090", 9090},
		},
		"LAB_PORT=10001\nLAB_PAGE_PORT=8091\n": {
			"laptop": {"127.0.0.1", "10001", 10000},
			"page":   {"127.0.0.1", "8091", 9090},
		},
	} {
		config := render(t, settings)
		found := map[string]port{}
		for name, service := range config.Services {
			for _, p := range service.Ports {
				found[name] = p
			}
		}
		if !maps.Equal(found, want) {
			t.Errorf("with %q: %+v, want %+v", settings, found, want)
		}
	}
}

// A .env with a part of the settings would join half the lab to each tailnet.
func TestRealTailnet_halfConfigured_isRefused(t *testing.T) {
	ctx, l := begin(t, "half")
	project := loadProject(ctx, t, l.Project)
	prepare := project.Services["prepare"]
	arguments := []string{"run", "--rm", "--network", "none", "--label", "dev.tailxds.test=" + l.Run.ID}
	for name, value := range prepare.Environment {
		if value != nil {
			arguments = append(arguments, "--env", name+"="+*value)
		}
	}
	arguments = append(arguments, "--env", "LAB_HAS_AUTHKEY=yes", prepare.Image, "prepare")
	output, err := exec.CommandContext(ctx, "docker", arguments...).CombinedOutput()
	if err == nil {
		t.Fatal("the lab starts with an auth key alone")
	}
	for _, says := range []string{"TS_ENVOY_AUTHKEY", "TS_ENVOY_CONTROL_URL", ".env.example"} {
		if !strings.Contains(string(output), says) {
			t.Errorf("%q does not name %s", output, says)
		}
	}
}
