package k8s

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tailxds/tailxds/integration/shares"
)

const (
	controlNamespace = "tailxds-control-plane"
	serversNamespace = "tailxds-servers"
	controlPlaneHost = "tsnet-dynamic-eds"
	manifest         = repository + "/deploy/controlplane/manifest.yaml"
	second           = repository + "/deploy/controlplane-second"
)

// rig is the whole system: two clusters and what joins them.
type rig struct {
	west, east cluster
	tailnet    tailnet
}

// TestWalkthrough follows docs/kubernetes.md from an empty cluster to an empty
// cluster. Each step needs the one before.
func TestWalkthrough(t *testing.T) {
	r := rig{
		west:    openCluster(t, "west", "KUBECONFIG_WEST"),
		east:    openCluster(t, "east", "KUBECONFIG_EAST"),
		tailnet: openTailnet(t),
	}
	t.Cleanup(func() { r.removeAll(t) })
	for _, step := range []struct {
		name string
		do   func(*testing.T)
	}{
		{"secrets", r.secrets},
		{"dry run on the server", r.dryRun},
		{"control plane", r.controlPlane},
		{"west", r.installWest},
		{"first test", r.firstTest},
		{"east joins with weight 2", r.installEast},
		{"only the tailnet joins the clusters", r.apart},
		{"one west server is unhealthy", r.unhealthy},
		{"any entry node", r.anyEntry},
		{"near", r.near},
		{"control-plane pod deleted under load", r.deleteControlPlane},
		{"server pod deleted under load", r.deleteServer},
		{"a pod drains before it ends", r.drain},
		{"second control plane", r.secondControlPlane},
		{"rolling upgrade under load", r.upgrade},
		{"scale to 3 and back under load, the first control plane away", r.scale},
		{"uninstall leaves no device", r.uninstall},
	} {
		if !t.Run(step.name, step.do) {
			t.FailNow() // the bundle shows the state at the failure
		}
	}
}

// secrets are all that differs from cluster to cluster: on headscale a key's
// tags are its devices' tags, so each kind of device has a key of its own.
func (r *rig) secrets(t *testing.T) {
	r.west.namespace(t, controlNamespace, "restricted")
	r.west.secret(t, controlNamespace, r.tailnet.mint(t, false, "tag:control-plane"), r.tailnet.key)
	settings := map[string]string{
		"TS_ENVOY_CONTROL_URL":  r.tailnet.login,
		"TS_ENVOY_API_URL":      r.tailnet.login,
		"TS_NO_LOGS_NO_SUPPORT": "true",
		"TS_ENVOY_CONFIG":       "/etc/tailxds/policy.yaml",
	}
	if r.tailnet.ca != "" {
		settings["SSL_CERT_FILE"] = "/etc/tailxds/ca.crt"
	}
	r.west.apply(t, configMap(controlNamespace, "envoy-control-plane-settings", settings))
	r.west.apply(t, configMap(controlNamespace, "envoy-control-plane-files", map[string]string{
		"ca.crt": r.tailnet.ca, "policy.yaml": policy("weighted"),
	}))
	for c, tags := range map[cluster][]string{
		r.west: {"tag:region-west", "tag:weight-1"},
		r.east: {"tag:region-east", "tag:weight-2"},
	} {
		// Tailscale's sidecar needs NET_ADMIN and a device of the node.
		c.namespace(t, serversNamespace, "privileged")
		c.secret(t, serversNamespace, r.tailnet.mint(t, true, tags...), "")
		c.apply(t, configMap(serversNamespace, "headscale-ca", map[string]string{"ca.crt": r.tailnet.ca}))
	}
}

func (c cluster) namespace(t *testing.T, name, podSecurity string) {
	t.Helper()
	c.apply(t, fmt.Sprintf(`{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": %q,
		"labels": {"pod-security.kubernetes.io/enforce": %q}}}`, name, podSecurity))
}

func (c cluster) secret(t *testing.T, namespace, authKey, apiToken string) {
	t.Helper()
	data := map[string]string{"TS_ENVOY_AUTHKEY": authKey}
	if apiToken != "" {
		data["TS_ENVOY_API_TOKEN"] = apiToken
	}
	c.apply(t, object("Secret", namespace, "tailscale-envoy", "stringData", data))
}

func configMap(namespace, name string, data map[string]string) string {
	return object("ConfigMap", namespace, name, "data", data)
}

func object(kind, namespace, name, field string, data map[string]string) string {
	text, _ := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": kind, "metadata": map[string]string{"namespace": namespace, "name": name}, field: data,
	}) // a map of strings can always be encoded
	return string(text)
}

func (r *rig) chartArgs(c cluster, tags string) []string {
	args := []string{
		release, chart, "--namespace", serversNamespace,
		"--set", "controlPlaneHost=" + controlPlaneHost + "." + r.tailnet.domain, "--set", "serverLocality=" + c.name,
		"--set", "advertiseTags=--advertise-tags=" + tags,
		"--set", "loginServer=" + r.tailnet.login,
	}
	if r.tailnet.ca != "" {
		args = append(args, "--set", "loginServerCA=headscale-ca")
	}
	return args
}

// dryRun lets the API server judge every object, and makes sure that it would
// refuse a wrong one.
func (r *rig) dryRun(t *testing.T) {
	strict := []string{"--dry-run=server", "--validate=strict"}
	r.west.do(t, append([]string{"apply", "-n", controlNamespace, "-f", manifest}, strict...)...)
	r.west.do(t, append([]string{"apply", "-n", controlNamespace, "-k", second}, strict...)...)
	for c, tags := range map[cluster]string{r.west: "tag:weight-1", r.east: "tag:weight-2"} {
		objects := c.release(t, append([]string{"template"}, r.chartArgs(c, tags)...)...)
		c.apply(t, objects, append([]string{"-n", serversNamespace}, strict...)...)
		wrong := strings.Replace(objects, "minReadySeconds:", "minimumReadySeconds:", 1)
		refused := c.try(t.Context(), wrong, append([]string{"apply", "-n", serversNamespace, "-f", "-"}, strict...)...)
		if refused.err == nil || !strings.Contains(refused.stderr, "minimumReadySeconds") {
			t.Errorf("%s took an object with an unknown field: %v", c.name, refused)
		}
	}
}

// controlPlane needs nothing but the secret and the manifest.
func (r *rig) controlPlane(t *testing.T) {
	r.west.do(t, "apply", "-n", controlNamespace, "-f", manifest)
	r.west.do(t, "-n", controlNamespace, "rollout", "status", "deployment/envoy-control-plane", "--timeout=90s")
	eventually(t, 10*time.Second, "the control plane is on the tailnet", func() error {
		d, err := r.tailnet.device(t.Context(), controlPlaneHost)
		if err == nil && !d.Online {
			err = fmt.Errorf("%s is offline", d.Name)
		}
		return err
	})
}

func (r *rig) install(t *testing.T, c cluster, tags string) {
	t.Helper()
	args := []string{"install", "--wait", "--timeout", "120s", "--set", "service.type=NodePort"}
	c.release(t, append(args, r.chartArgs(c, tags)...)...)
	for _, p := range c.servers(t) {
		if _, err := r.tailnet.device(t.Context(), p.name); err != nil {
			t.Errorf("a device is named like its pod: %v", err)
		}
	}
}

func (r *rig) installWest(t *testing.T) { r.install(t, r.west, "tag:weight-1") }

// firstTest asks a server itself, then an Envoy.
func (r *rig) firstTest(t *testing.T) {
	pods := r.west.servers(t)
	if len(pods) != 2 {
		t.Fatalf("west has %d servers, not 2", len(pods))
	}
	r.expect(t, r.west, direct(pods[0]), shares.Shares{pods[0].name: 1})
	r.expect(t, r.west, entry(pods[0]), r.weights(t))
}

func (r *rig) installEast(t *testing.T) {
	r.install(t, r.east, "tag:weight-2")
	r.expect(t, r.west, entry(r.west.servers(t)[0]), r.weights(t))
}

// apart: each cluster reaches its own node's port, and not the other's.
func (r *rig) apart(t *testing.T) {
	for _, c := range []cluster{r.west, r.east} {
		address := c.do(t, "get", "nodes", "-o", `jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}`)
		port := c.do(t, "-n", serversNamespace, "get", "service", release, "-o", "jsonpath={.spec.ports[0].nodePort}")
		url := "http://" + address + ":" + port + "/"
		for _, from := range []cluster{r.west, r.east} {
			tally := from.client(t, url, 1, "-timeout", "3s")
			if reached := tally.Answered() == 1; reached != (from == c) {
				t.Errorf("%s reaches %s at %s: %v", from.name, c.name, url, reached)
			}
		}
	}
}

// unhealthy: with one of its two servers out, west keeps 0.5 × 1.4 of its weight
// (1.4 is Envoy's overprovisioning factor), so 1.4 of then 5.4: 25.9 %.
func (r *rig) unhealthy(t *testing.T) {
	west, east := r.west.servers(t), r.east.servers(t)
	out := west[0]
	if got, want := r.west.get(t, direct(out)+"unhealthy"), "["+out.name+"] Set to unhealthy"; got != want {
		t.Fatalf("%q was answered, not %q", got, want)
	}
	r.expect(t, r.west, entry(west[1]), shares.Shares{west[1].name: 1.4, east[0].name: 2, east[1].name: 2})
	r.west.get(t, direct(out)+"healthy")
	r.expect(t, r.west, entry(west[1]), r.weights(t))
}

func (r *rig) anyEntry(t *testing.T) {
	for _, c := range []cluster{r.west, r.east} {
		for _, p := range c.servers(t) {
			r.expect(t, c, entry(p), r.weights(t))
		}
	}
}

// deleteControlPlane: the new pod is the same device, remembers what the old one
// published, and no request notices.
func (r *rig) deleteControlPlane(t *testing.T) {
	before, err := r.tailnet.device(t.Context(), controlPlaneHost)
	if err != nil {
		t.Fatal(err)
	}
	r.west.underLoad(t, service, func() {
		r.west.do(t, "-n", controlNamespace, "delete", "pod", "-l", "app=envoy-control-plane")
		r.west.do(t, "-n", controlNamespace, "rollout", "status", "deployment/envoy-control-plane", "--timeout=90s")
		eventually(t, 30*time.Second, "the control plane is back as the same device", func() error {
			after, err := r.tailnet.device(t.Context(), controlPlaneHost)
			switch {
			case err != nil:
				return err
			case after.ID != before.ID || after.Addresses[0] != before.Addresses[0]:
				return fmt.Errorf("it was device %s at %s and is %s at %s", before.ID, before.Addresses[0], after.ID, after.Addresses[0])
			case !after.Online:
				return fmt.Errorf("%s is offline", after.Name)
			}
			return nil
		})
	})
	// Nothing but the Secret outlives a pod.
	log := r.west.do(t, "-n", controlNamespace, "logs", "deployment/envoy-control-plane")
	if !strings.Contains(log, "serving what was published last until the source answers") {
		t.Errorf("the new pod does not remember what was published:\n%s", log)
	}
}

// deleteServer: whoever takes the deleted pod's place gets its share, and the
// tailnet forgets the old one.
func (r *rig) deleteServer(t *testing.T) {
	gone := r.west.servers(t)[0]
	r.west.underLoad(t, service, func() {
		r.west.do(t, "-n", serversNamespace, "delete", "pod", gone.name)
		r.west.rolledOut(t)
	})
	r.devicesMatchPods(t)
	r.expect(t, r.west, entry(r.west.servers(t)[0]), r.weights(t))
}

// secondControlPlane is the option with two replicas side by side.
func (r *rig) secondControlPlane(t *testing.T) {
	r.west.do(t, "apply", "-n", controlNamespace, "-k", second)
	r.west.do(t, "-n", controlNamespace, "rollout", "status", "deployment/envoy-control-plane-2", "--timeout=90s")
	if _, err := r.tailnet.device(t.Context(), controlPlaneHost+"-2"); err != nil {
		t.Fatal(err)
	}
}

// upgrade tells west's Envoys of the second control plane, in new pods.
func (r *rig) upgrade(t *testing.T) {
	before := r.west.servers(t)
	r.west.underLoad(t, service, func() {
		r.west.release(t, append([]string{
			"upgrade", "--reuse-values", "--set", "extraControlPlaneHosts={" + controlPlaneHost + "-2." + r.tailnet.domain + "}",
		}, r.chartArgs(r.west, "tag:weight-1")...)...)
		r.west.rolledOut(t)
	})
	for _, old := range before {
		for _, p := range r.west.servers(t) {
			if p.name == old.name {
				t.Errorf("%s was not replaced", old.name)
			}
		}
	}
	r.devicesMatchPods(t)
	r.expect(t, r.west, entry(r.west.servers(t)[0]), r.weights(t))
}

// scale: that west's Envoys find the third server while the first control plane
// is away shows that they have turned to the second.
func (r *rig) scale(t *testing.T) {
	for _, step := range []struct{ servers, firstControlPlanes string }{{"3", "0"}, {"2", "1"}} {
		r.west.do(t, "-n", controlNamespace, "scale", "deployment/envoy-control-plane", "--replicas="+step.firstControlPlanes)
		r.west.do(t, "-n", controlNamespace, "rollout", "status", "deployment/envoy-control-plane", "--timeout=90s")
		r.west.underLoad(t, service, func() {
			r.west.do(t, "-n", serversNamespace, "scale", "deployment/"+release, "--replicas="+step.servers)
			r.west.rolledOut(t)
		})
		r.devicesMatchPods(t)
		if got := fmt.Sprint(len(r.west.servers(t))); got != step.servers {
			t.Errorf("west has %s servers, not %s", got, step.servers)
		}
		// A control plane that has just started counts those that the steps before
		// replaced, and may hold one loss more for a minute.
		url, want := entry(r.west.servers(t)[0]), r.weights(t)
		eventually(t, 2*time.Minute, "the shares are what the weights say", func() error { return r.shared(t, r.west, url, want) })
	}
}

func (r *rig) uninstall(t *testing.T) {
	for _, c := range []cluster{r.west, r.east} {
		c.release(t, "uninstall", release, "--namespace", serversNamespace, "--wait", "--timeout", "90s")
	}
	r.devicesMatchPods(t)
}

// rolledOut waits until every pod is new and ready, and the old ones are gone.
func (c cluster) rolledOut(t *testing.T) {
	t.Helper()
	c.do(t, "-n", serversNamespace, "rollout", "status", "deployment/"+release, "--timeout=180s")
	eventually(t, 90*time.Second, "the old pods of "+c.name+" are gone", func() error {
		want := c.do(t, "-n", serversNamespace, "get", "deployment", release, "-o", "jsonpath={.spec.replicas}")
		names := strings.Fields(c.do(t, "-n", serversNamespace, "get", "pods", "-l", "app="+release, "-o", "name"))
		if fmt.Sprint(len(names)) != want {
			return fmt.Errorf("there are %v, and there should be %s", names, want)
		}
		return nil
	})
}

// devicesMatchPods waits until the tailnet's servers are the pods' and no more.
// A device logs out as its pod ends; headscale's own clearing of ephemeral
// devices waits for two minutes, too long to make this pass.
func (r *rig) devicesMatchPods(t *testing.T) {
	t.Helper()
	eventually(t, 30*time.Second, "the tailnet's devices are the pods", func() error {
		want := map[string]bool{}
		for _, c := range []cluster{r.west, r.east} {
			for _, p := range c.servers(t) {
				want[p.name] = true
			}
		}
		devices, err := r.tailnet.devices(t.Context())
		if err != nil {
			return err
		}
		for _, d := range devices {
			if (d.has("tag:region-west") || d.has("tag:region-east")) && !want[d.Name] {
				return fmt.Errorf("%s is on the tailnet, and no pod", d.Name)
			}
			delete(want, d.Name)
		}
		if len(want) > 0 {
			return fmt.Errorf("these pods are no devices: %v", want)
		}
		return nil
	})
}

// removeAll leaves given clusters and a given tailnet as they were. After a
// failure all stays as it is, and a bundle of logs is made of it.
func (r *rig) removeAll(t *testing.T) {
	if t.Failed() {
		return
	}
	ctx := context.WithoutCancel(t.Context())
	for _, c := range []cluster{r.west, r.east} {
		c.try(ctx, "", "delete", "namespace", controlNamespace, serversNamespace, "--ignore-not-found", "--wait=false")
	}
	devices, err := r.tailnet.devices(ctx)
	if err != nil {
		t.Error(err)
	}
	for _, d := range devices {
		// It is no ephemeral device: it keeps its name and address while it is away.
		if d.Name == controlPlaneHost || d.Name == controlPlaneHost+"-2" {
			if err := r.tailnet.remove(ctx, d); err != nil {
				t.Error(err)
			}
		}
	}
}

// Any Envoy of the cluster, and then one in particular, and a server without.
const service = "http://" + release + ":10000/"

func entry(p pod) string  { return "http://" + p.address + ":10000/" }
func direct(p pod) string { return "http://" + p.address + ":8080/" }

// weights are what the tags promise for the pods there are now.
func (r *rig) weights(t *testing.T) shares.Shares {
	t.Helper()
	want := shares.Shares{}
	for c, weight := range map[cluster]float64{r.west: 1, r.east: 2} {
		for _, p := range c.servers(t) {
			want[p.name] = weight
		}
	}
	return want
}

// expect waits until exactly the right hosts answer, which nobody announces,
// and then holds the shares of many requests against the statistics.
func (r *rig) expect(t *testing.T, c cluster, url string, want shares.Shares) {
	t.Helper()
	eventually(t, time.Minute, "the right hosts answer", func() error {
		tally := c.client(t, url, 100).By(shares.Host)
		for host := range want {
			if tally.Counts[host] == 0 {
				return fmt.Errorf("%s does not answer: %v", host, tally)
			}
		}
		if len(tally.Counts) != len(want) {
			return fmt.Errorf("more answer than %v: %v", want, tally)
		}
		return nil
	})
	if err := r.shared(t, c, url, want); err != nil {
		t.Error(err)
	}
}

// shared holds the shares of many requests against the statistics.
func (r *rig) shared(t *testing.T, c cluster, url string, want shares.Shares) error {
	t.Helper()
	tally := c.client(t, url, shares.Enough(want, shares.OneStepWrong(want)...)).By(shares.Host)
	t.Logf("%s from %s: %v", url, c.name, tally)
	return shares.Check(tally, want)
}
