package k8s

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what the chart renders to testdata")

const (
	chart   = repository + "/deploy/server"
	release = "ts-envoy-server"
)

// walkthrough is the command of the tutorial, flag by flag.
var walkthrough = []string{
	"--set", "controlPlaneHost=tsnet-dynamic-eds.example.ts.net", "--set", "serverLocality=east",
	"--set", "advertiseTags=--advertise-tags=tag:weight-2",
}

func render(t *testing.T, args ...string) result {
	t.Helper()
	return execute(t.Context(), "", program(t, "helm"), append([]string{"template", release, chart}, args...)...)
}

func TestChart_helmLint_noFault(t *testing.T) {
	r := execute(t.Context(), "", program(t, "helm"), append([]string{"lint", "--strict", chart}, walkthrough...)...)
	if r.err != nil {
		t.Error(r.err)
	}
}

func TestChart_values_renderWhatTheySay(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0123456789abcdef", 4)
	for name, args := range map[string][]string{
		"walkthrough": walkthrough,
		"headscale": {
			"--set", "controlPlaneHost=tsnet-dynamic-eds.tailnet.lab", "--set", "serverLocality=west",
			"--set", "loginServer=https://headscale:8443", "--set", "loginServerCA=headscale-ca",
			"--set", "advertiseTags=--advertise-tags=tag:weight-1",
		},
		"application": {
			"--set", "controlPlaneHost=tsnet-dynamic-eds.example.ts.net",
			"--set", "extraControlPlaneHosts={tsnet-dynamic-eds-2.example.ts.net,tsnet-dynamic-eds-3.example.ts.net}",
			"--set", "server.image.repository=registry.example/shop", "--set", "server.image.digest=" + digest,
			"--set", "envoy.image.digest=" + digest, "--set", "tailscale.image.digest=" + digest,
			"--set", "server.drainPath=", "--set", "server.port=3000", "--set", "server.env[0].name=COLOR",
			"--set", "server.env[0].value=blue", "--set", "replicaCount=5", "--set", "drainSeconds=20",
			"--set", "advertiseTags=", "--set", "tags={weight-2,tag:service-shop}",
			"--set", "server.command={/shop}", "--set", "server.args={--verbose}", "--set", "server.envFrom[0].secretRef.name=shop",
			"--set", "server.volumes[0].name=cache", "--set", "server.volumes[0].emptyDir.medium=Memory",
			"--set", "server.volumeMounts[0].name=cache", "--set", "server.volumeMounts[0].mountPath=/cache",
			"--set", "server.securityContext.runAsUser=1000", "--set", "server.livenessProbe.exec.command={/shop,alive}",
			"--set", "server.startupProbe.httpGet.path=/up", "--set", "server.startupProbe.httpGet.port=http",
			"--set", "nodeSelector.disk=ssd", "--set", "imagePullSecrets[0].name=pull", "--set", "podAnnotations.a=b",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := render(t, args...)
			if r.err != nil {
				t.Fatal(r.err)
			}
			golden(t, name+".yaml", r.stdout)
		})
	}
}

// What helm says after an install must fit what was asked for.
func TestChart_notes_fitTheValues(t *testing.T) {
	for name, test := range map[string]struct {
		set   []string
		says  []string
		never string
	}{
		"tags are asked for": {
			nil,
			[]string{"2 servers in east", "rollout status deployment/" + release, "http://" + release + ".default:10000"},
			"advertiseTags",
		},
		"tags come with headscale's key": {
			[]string{"--set", "loginServer=https://headscale.example"},
			[]string{"advertiseTags is not sent", "--tags tag:weight-2,tag:region-east"},
			"No tags",
		},
		"a list of tags": {
			[]string{"--set", "advertiseTags=", "--set", "tags={weight-2,service-shop}", "--set", "loginServer=https://headscale.example"},
			[]string{"tags are not sent", "--tags tag:weight-2,tag:service-shop,tag:region-east"},
			"No tags",
		},
		"tags with a prefix": {
			[]string{"--set", "advertiseTags=", "--set", "tags={pool-weight-2}", "--set", "tagPrefix=pool-", "--set", "loginServer=https://headscale.example"},
			[]string{"--tags tag:pool-weight-2,tag:pool-region-east"},
			"No tags",
		},
		"no tags": {
			[]string{"--set", "advertiseTags="},
			[]string{"No tags", "such as tag:weight-1,"},
			"not sent",
		},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"install", release, chart, "--dry-run=client", "--namespace", "default"}, walkthrough...)
			r := execute(t.Context(), "", program(t, "helm"), append(args, test.set...)...)
			if r.err != nil {
				t.Fatal(r.err)
			}
			_, notes, _ := strings.Cut(r.stdout, "\nNOTES:\n")
			for _, text := range test.says {
				if !strings.Contains(notes, text) {
					t.Errorf("the notes do not say %q:\n%s", text, notes)
				}
			}
			if strings.Contains(notes, test.never) {
				t.Errorf("the notes say %q:\n%s", test.never, notes)
			}
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the result differs from %s; look at it with: go test ./k8s -run %s -update && git diff", file, t.Name())
	}
}

func TestChart_schema_refusesWrongValues(t *testing.T) {
	for name, test := range map[string]struct {
		set  []string
		says string // empty: the values are good
	}{
		"as in the walkthrough":         {nil, ""},
		"several tags":                  {[]string{`advertiseTags=--advertise-tags=tag:weight-2\,tag:region-east`}, ""},
		"no locality":                   {[]string{"serverLocality="}, ""},
		"a short name":                  {[]string{"controlPlaneHost=tsnet-dynamic-eds"}, ""},
		"http for a login server":       {[]string{"loginServer=http://headscale:8080"}, ""},
		"no control plane":              {[]string{"controlPlaneHost="}, "controlPlaneHost"},
		"a control plane with a port":   {[]string{"controlPlaneHost=cp:18000"}, "controlPlaneHost"},
		"a control plane that is YAML":  {[]string{"controlPlaneHost={a: b}"}, "controlPlaneHost"},
		"tags without the flag":         {[]string{"advertiseTags=tag:weight-2"}, "advertiseTags"},
		"a flag that is no tag":         {[]string{"advertiseTags=--advertise-routes=10.0.0.0/8"}, "advertiseTags"},
		"a second flag after the tags":  {[]string{"advertiseTags=--advertise-tags=tag:a --ssh"}, "advertiseTags"},
		"a locality with a space":       {[]string{"serverLocality=us east"}, "serverLocality"},
		"a login server without scheme": {[]string{"loginServer=headscale"}, "loginServer"},
		"a list of tags":                {[]string{"advertiseTags=", "tags={weight-2,tag:region-east}"}, ""},
		"a tag that is none":            {[]string{"advertiseTags=", "tags={weight 2}"}, "tags"},
		"a prefix that begins no tag":   {[]string{"tagPrefix=tag:pool-"}, "tagPrefix"},
		"tags in both ways":             {[]string{"tags={weight-2}"}, "not"},
		"a volume that is the chart's":  {[]string{"server.volumes[0].name=envoy"}, "volumes"},
		"replicas in words":             {[]string{"replicaCount=two"}, "replicaCount"},
		"a negative number of replicas": {[]string{"replicaCount=-1"}, "replicaCount"},
		"a digest that is a tag":        {[]string{"envoy.image.digest=latest"}, "digest"},
		"Envoy's port for the server":   {[]string{"server.port=10000"}, "port"},
		"no time to drain":              {[]string{"drainSeconds=0"}, "drainSeconds"},
		"a misspelt value":              {[]string{"replicas=3"}, "replicas"},
		"a misspelt value further down": {[]string{"server.images.tag=1"}, "images"},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{}, walkthrough...)
			for _, set := range test.set {
				args = append(args, "--set", set)
			}
			r := render(t, args...)
			switch {
			case test.says == "" && r.err != nil:
				t.Errorf("good values were refused: %v", r.err)
			case test.says != "" && r.err == nil:
				t.Error("bad values were taken")
			case test.says != "" && !strings.Contains(r.stderr, test.says):
				t.Errorf("the refusal does not name %s: %s", test.says, r.stderr)
			}
		})
	}
}

// The README's table and the values must name the same things.
func TestChart_readme_namesEveryValue(t *testing.T) {
	for _, chart := range []string{chart, controlPlaneChart} {
		readme, err := os.ReadFile(chart + "/README.md")
		if err != nil {
			t.Fatal(err)
		}
		values, err := os.ReadFile(chart + "/values.yaml")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range leaves(string(values)) {
			if !strings.Contains(string(readme), "`"+name+"`") {
				t.Errorf("%s/README.md does not explain `%s`", chart, name)
			}
		}
	}
}

// leaves are the values that can be set; what Kubernetes gives its form is one.
func leaves(values string) []string {
	var parents, all []string
	whole := regexp.MustCompile(`(^|\.)(resources|securityContext|podAnnotations)(\.|$)`)
	for line := range strings.Lines(values) {
		key, rest, ok := strings.Cut(strings.TrimRight(line, "\n"), ":")
		if !ok || strings.HasPrefix(strings.TrimSpace(key), "#") {
			continue
		}
		depth := (len(key) - len(strings.TrimLeft(key, " "))) / 2
		parents = append(parents[:depth], strings.TrimSpace(key))
		name := strings.Join(parents, ".")
		if at := whole.FindStringSubmatchIndex(name); at != nil {
			name = name[:at[5]]
		} else if rest == "" {
			continue
		}
		if len(all) == 0 || all[len(all)-1] != name {
			all = append(all, name)
		}
	}
	return all
}
