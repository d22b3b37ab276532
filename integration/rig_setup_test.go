package integration_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/ory/dockertest/v3"
	"github.com/ory/dockertest/v3/docker"

	"github.com/tailxds/tailxds/integration/engine"
	"github.com/tailxds/tailxds/integration/lab"
)

// rig is a smaller lab, put together part by part so that single parts can be
// taken away, changed and put back: headscale, the control plane, a server in
// west with an Envoy, one in east without, all on one network. What a part is
// (image, user, settings) stands in compose.yaml only.
type rig struct {
	*lab.Lab
	pool    *dockertest.Pool
	project *types.Project
	network *dockertest.Network
	parts   map[string]*dockertest.Resource
}

func startRig(t *testing.T) (context.Context, *rig) {
	t.Helper()
	ctx, l := begin(t, "rig")
	relayApart(t, headscaleConfig(t))
	project := loadProject(ctx, t, l.Project)
	l.From, l.Client = "west-1", project.Services["client"].Image
	pool, err := dockertest.NewPool("")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Lab: l, pool: pool, project: project, parts: map[string]*dockertest.Resource{}}
	r.network, err = pool.CreateNetwork(l.Project, func(options *docker.CreateNetworkOptions) {
		options.Internal, options.Labels = true, l.Run.Labels()
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range project.Volumes {
		options := docker.CreateVolumeOptions{Name: r.volume(name), Labels: l.Run.Labels(), Context: ctx}
		if _, err := pool.Client.CreateVolume(options); err != nil {
			t.Fatal(err)
		}
	}
	return ctx, r
}

// relayPort is where the rig's relay listens.
const relayPort = 8443

// relayApart makes headscale name a relay that is not its own, as hosted
// Tailscale has it: what is away with the coordination server is the rig's to
// choose.
func relayApart(t *testing.T, config string) {
	t.Helper()
	path := filepath.Join(config, "config.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := string(text)
	for from, to := range map[string]string{
		"    enabled: true\n    region_id: 999": "    enabled: false\n    region_id: 999",
		"  paths: []":                           "  paths: [/etc/headscale/relay.yaml]",
	} {
		if strings.Count(changed, from) != 1 {
			t.Fatalf("%s has not one %q", path, from)
		}
		changed = strings.Replace(changed, from, to, 1)
	}
	relay := fmt.Sprintf("regions:\n  901:\n    regionid: 901\n    regioncode: rig\n    regionname: rig\n    nodes:\n"+
		"      - {name: relay, regionid: 901, hostname: relay, derpport: %d, stunport: -1, insecurefortests: true}\n", relayPort)
	err = errors.Join(os.WriteFile(path, []byte(changed), 0o644), os.WriteFile(filepath.Join(config, "relay.yaml"), []byte(relay), 0o644))
	if err != nil {
		t.Fatal(err)
	}
}

// relays starts the relay.
func (r *rig) relays(t *testing.T) {
	t.Helper()
	part, err := r.pool.RunWithOptions(&dockertest.RunOptions{
		Name: r.Container("relay"), Repository: r.Probe.Image(), Tag: "latest", Cmd: engine.Relay(relayPort), Labels: r.Run.Labels(),
	}, func(host *docker.HostConfig) { host.NetworkMode = r.network.Network.Name })
	if err != nil {
		t.Fatalf("starting the relay: %v", err)
	}
	r.parts["relay"] = part
	r.callBy(t, part, "relay")
}

func (r *rig) volume(name string) string { return r.Project + "_" + name }

// finishes starts a part that does its work and ends.
func (r *rig) finishes(ctx context.Context, t *testing.T, service string) {
	t.Helper()
	r.run(t, service, nil)
	code, err := r.pool.Client.WaitContainerWithContext(r.parts[service].Container.ID, ctx)
	if err != nil || code != 0 {
		t.Fatalf("%s ended with status %d (%v)", service, code, err)
	}
}

// starts starts a part, with some settings changed, and waits until its own
// health check says yes.
func (r *rig) starts(ctx context.Context, t *testing.T, service string, settings map[string]string) {
	t.Helper()
	r.run(t, service, settings)
	await(ctx, t, func() error { return r.healthy(ctx, service) })
}

func (r *rig) healthy(ctx context.Context, service string) error {
	check := r.project.Services[service].HealthCheck
	if check == nil || len(check.Test) < 2 || check.Test[0] != "CMD" {
		return fmt.Errorf("%s has no health check in %s", service, composeFile)
	}
	_, err := engine.Exec(ctx, r.Container(service), check.Test[1:]...)
	return err
}

// run starts a part as compose.yaml describes it.
func (r *rig) run(t *testing.T, service string, settings map[string]string) {
	t.Helper()
	described, known := r.project.Services[service]
	if !known {
		t.Fatalf("%s has no service %s", composeFile, service)
	}
	repository, tag, _ := strings.Cut(described.Image, ":")
	options := &dockertest.RunOptions{
		Name: r.Container(service), Hostname: described.Hostname,
		Repository: repository, Tag: tag, User: described.User,
		Entrypoint: described.Entrypoint, Cmd: described.Command,
		Env: environment(described.Environment, settings), Mounts: r.mounts(described.Volumes),
		Labels: r.Run.Labels(),
	}
	mode := described.NetworkMode
	if owner, shared := strings.CutPrefix(mode, "service:"); shared {
		mode = "container:" + r.Container(owner)
	} else if mode == "" {
		mode = r.network.Network.Name
	}
	part, err := r.pool.RunWithOptions(options, func(host *docker.HostConfig) {
		host.NetworkMode, host.PublishAllPorts = mode, false
		host.CapAdd, host.CapDrop = described.CapAdd, described.CapDrop
		host.Tmpfs = map[string]string{}
		for _, path := range described.Tmpfs {
			host.Tmpfs[path] = ""
		}
		for _, device := range described.Devices {
			host.Devices = append(host.Devices, docker.Device{
				PathOnHost: device.Source, PathInContainer: device.Target, CgroupPermissions: device.Permissions,
			})
		}
	})
	if err != nil {
		t.Fatalf("starting %s: %v", service, err)
	}
	r.parts[service] = part
	if service == "headscale" { // all others go by their tailnet names
		r.callBy(t, part, service)
	}
}

// callBy lets the others find a part by a name. dockertest gives no aliases, so
// the part joins its network a second time.
func (r *rig) callBy(t *testing.T, part *dockertest.Resource, alias string) {
	t.Helper()
	err := errors.Join(
		part.DisconnectFromNetwork(r.network),
		r.pool.Client.ConnectNetwork(r.network.Network.ID, docker.NetworkConnectionOptions{
			Container:      part.Container.ID,
			EndpointConfig: &docker.EndpointConfig{Aliases: []string{alias}},
		}),
	)
	if err != nil {
		t.Fatalf("naming %s on the network: %v", alias, err)
	}
}

// replace puts a part with other settings in the place of the running one.
func (r *rig) replace(ctx context.Context, t *testing.T, service string, settings map[string]string) {
	t.Helper()
	if err := r.pool.Purge(r.parts[service]); err != nil {
		t.Fatal(err)
	}
	r.starts(ctx, t, service, settings)
}

// signal sends a signal to a part.
func (r *rig) signal(t *testing.T, service string, signal docker.Signal) {
	t.Helper()
	err := r.pool.Client.KillContainer(docker.KillContainerOptions{ID: r.parts[service].Container.ID, Signal: signal})
	if err != nil {
		t.Fatal(err)
	}
}

// ends waits until a part has ended.
func (r *rig) ends(ctx context.Context, t *testing.T, service string) {
	t.Helper()
	if _, err := r.pool.Client.WaitContainerWithContext(r.parts[service].Container.ID, ctx); err != nil {
		t.Fatal(err)
	}
}

// restarts starts a part again that has ended.
func (r *rig) restarts(ctx context.Context, t *testing.T, service string) {
	t.Helper()
	if err := r.pool.Client.StartContainerWithContext(r.parts[service].Container.ID, nil, ctx); err != nil {
		t.Fatal(err)
	}
	await(ctx, t, func() error { return r.healthy(ctx, service) })
}

// environment is what compose.yaml sets, with changes.
func environment(described types.MappingWithEquals, changes map[string]string) []string {
	merged := map[string]string{}
	for name, value := range described {
		if value != nil {
			merged[name] = *value
		}
	}
	maps.Copy(merged, changes)
	var list []string
	for _, name := range slices.Sorted(maps.Keys(merged)) {
		list = append(list, name+"="+merged[name])
	}
	return list
}

// mounts are compose.yaml's, with the rig's own volumes.
func (r *rig) mounts(described []types.ServiceVolumeConfig) []string {
	var list []string
	for _, volume := range described {
		source := volume.Source
		if volume.Type == types.VolumeTypeVolume {
			source = r.volume(source)
		}
		mount := source + ":" + volume.Target
		if volume.ReadOnly {
			mount += ":ro"
		}
		list = append(list, mount)
	}
	return list
}
