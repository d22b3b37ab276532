package envoys_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"google.golang.org/grpc"

	collector "go.opentelemetry.io/proto/otlp/collector/metrics/v1"

	"github.com/tailxds/tailxds/integration/harness"
)

// sink is an OpenTelemetry collector that keeps what Envoys say of themselves,
// and the names of what they measure.
type sink struct {
	collector.UnimplementedMetricsServiceServer

	mu    sync.Mutex
	heard map[string]bool
}

// Export implements the OTLP metrics service.
func (s *sink) Export(_ context.Context, r *collector.ExportMetricsServiceRequest) (*collector.ExportMetricsServiceResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, from := range r.GetResourceMetrics() {
		for _, a := range from.GetResource().GetAttributes() {
			s.heard[a.GetKey()+"="+a.GetValue().GetStringValue()] = true
		}
		for _, scope := range from.GetScopeMetrics() {
			for _, m := range scope.GetMetrics() {
				s.heard[m.GetName()] = true
			}
		}
	}
	return &collector.ExportMetricsServiceResponse{}, nil
}

func (s *sink) lacks(want ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range want {
		if !s.heard[w] {
			return fmt.Errorf("no %s in %d things", w, len(s.heard))
		}
	}
	return nil
}

// knows answers questions for one name's IPv4 address, and for nothing else.
func knows(t *testing.T, h *harness.Host, name, address string) {
	t.Helper()
	var socket net.PacketConn
	err := h.Do(func() (err error) {
		socket, err = (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", ":53")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = socket.Close() })
	go func() {
		buffer := make([]byte, 1500)
		for {
			n, from, err := socket.ReadFrom(buffer)
			if err != nil {
				return // it is closed
			}
			var m dnsmessage.Message
			if m.Unpack(buffer[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			m.Response, m.Additionals = true, nil
			switch {
			case q.Name.String() != name+".":
				m.RCode = dnsmessage.RCodeNameError
			case q.Type == dnsmessage.TypeA:
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 5},
					Body:   &dnsmessage.AResource{A: [4]byte(net.ParseIP(address).To4())},
				}}
			}
			if packed, err := m.Pack(); err == nil {
				_, _ = socket.WriteTo(packed, from)
			}
		}
	}()
}

// An Envoy finds its control plane by name, by the resolver that its bootstrap
// names, and tells a collector of one's own what it tells the control plane. Its
// own pages are for its host alone, and it has a limit of connections.
func TestBootstrap_byNameWithCollector_works(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, dns, otlp := r.Server("a"), r.Host("dns"), r.Host("collector")
	control := r.ControlPlane("", a.Device("tag:weight-1"))
	knows(t, dns, "plane.example.com", control.V4.String())
	heard := collectOn(t, otlp)

	entry := control.EnvoyBy("entry", "--control-plane", "plane.example.com", "--dns", dns.V4.String(),
		"--region", "west", "--zone", "a", "--otlp", net.JoinHostPort(otlp.V4.String(), "4317"))
	entry.AwaitHealthy("server", 1)
	if tally := entry.Ask(10, harness.Get(entry.URL(10000), "")); tally.Failed > 0 {
		t.Error(tally.Reasons)
	}
	r.Await("the collector hears of it", func() error {
		return heard.lacks("cloud.region=west", "cloud.availability_zone=a", "service.instance.id=entry", "cluster.endpoint.rq_total")
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if c, err := dns.Dial(ctx, "tcp", net.JoinHostPort(entry.V4.String(), "9901")); err == nil {
		_ = c.Close()
		t.Error("others reach Envoy's own pages")
	}
	if said := entry.LogTail(); strings.Contains(said, "no configured limit") {
		t.Errorf("Envoy warns: %s", said)
	}
}

// An Envoy tells what it is built of, tens of kilobytes, when its stream begins,
// and not with each answer to what it is sent.
func TestEnvoy_reconnect_sendsItsNodeOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, b := r.Server("a"), r.Server("b")
	control := r.ControlPlane("", a.Device("tag:weight-1"), b.Device("tag:weight-1"))
	entry := control.EnvoyBy("entry", "--control-plane", control.V4.String(), "--report-every", "1m")
	entry.AwaitHealthy("server", 2)
	const sent, changes = "cluster.control_plane.upstream_cx_tx_bytes_total", 5
	before, updates := entry.Stat(sent), entry.Stat("cluster.server.update_success")
	for i := range changes {
		control.SetDevices(a.Device("tag:weight-1"), b.Device(fmt.Sprintf("tag:weight-%d", 2+i)))
		entry.AwaitStats(map[string]int{"cluster.server.update_success": updates + 1 + i})
	}
	if more := entry.Stat(sent) - before; more > changes*1000 {
		t.Errorf("%d changes of a weight made the Envoy send %d bytes, some %d each", changes, more, more/changes)
	}

	// On a new stream it does again: the control plane knows whom it serves.
	control.Stop()
	control.Start()
	r.Await("the Envoy is back", func() error {
		status, err := control.Status()
		if err != nil {
			return err
		}
		if len(status.Envoys) != 1 || status.Envoys[0].Node != "entry" || status.Envoys[0].Envoy == "" {
			return fmt.Errorf("Envoys are %+v", status.Envoys)
		}
		return nil
	})
}

// What YAML 1.1 takes for a boolean, null or a number is a name like others. Envoy
// refuses one that the bootstrap does not quote.
func TestBootstrap_namesThatYAML11ReadsOtherwise_areTextsToEnvoy(t *testing.T) {
	t.Parallel()
	if buildErr != nil {
		t.Fatal(buildErr)
	}
	dir := t.TempDir()
	bootstrap := func(t *testing.T, flags ...string) string {
		t.Helper()
		text, err := exec.CommandContext(t.Context(), programs.ControlPlane, append([]string{"bootstrap", "--control-plane", "100.64.0.1"}, flags...)...).Output()
		if err != nil {
			t.Fatalf("%v: %v", flags, err)
		}
		return string(text)
	}
	validate := func(t *testing.T, n int, text string) error {
		t.Helper()
		path := filepath.Join(dir, fmt.Sprintf("%d.yaml", n))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		said, err := exec.CommandContext(t.Context(), programs.Envoy, "--mode", "validate", "--log-level", "warn", "--config-path", path).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, said)
		}
		return nil
	}
	// Region and zone take names only.
	names := strings.Fields(`y Y n N yes Yes YES no No NO nO on On ON off Off OFF true True TRUE false False FALSE null Null NULL
		0 1 01 0x1f 0X1F 0o17 1e3 1E3 inf nan Infinity 2026-01-02`)
	others := strings.Fields("~ = << 1_000 1:30 +1 -1 1. .5 1.5e-3 .inf -.INF .nan 100.64.0.1")
	var all [][]string
	for w := range slices.Chunk(names, 4) {
		all = append(all, []string{"--node", w[0], "--cluster", w[1%len(w)], "--region", w[2%len(w)], "--zone", w[3%len(w)]})
	}
	for w := range slices.Chunk(others, 2) {
		all = append(all, []string{"--node", w[0], "--cluster", w[1]})
	}
	for i, flags := range all {
		if err := validate(t, i, bootstrap(t, flags...)); err != nil {
			t.Errorf("%v: %v", flags, err)
		}
	}
	unquoted := strings.ReplaceAll(bootstrap(t, "--region", "no"), `region: "no"`, "region: no")
	if err := validate(t, len(all), unquoted); err == nil || !strings.Contains(err.Error(), "region") {
		t.Errorf("this Envoy takes a boolean for a region, so that the words above prove nothing: %v", err)
	}

	// Texts also where Envoy would take a number for one: as they are written.
	r := newRig(t)
	a := r.Server("a")
	control := r.ControlPlane("", a.Device("tag:weight-1"))
	entry := control.EnvoyBy("entry", "--control-plane", control.V4.String(), "--node", "1e3", "--cluster", "010", "--region", "0X1F")
	dump, err := entry.Admin("/config_dump?resource=&mask=bootstrap.node")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"id": "1e3"`, `"cluster": "010"`, `"region": "0x1f"`} {
		if !strings.Contains(dump, want) {
			t.Errorf("Envoy's node lacks %s: %s", want, dump)
		}
	}
}

// collectOn starts an OpenTelemetry collector on port 4317 of a host, which ends with
// the test.
func collectOn(t *testing.T, host *harness.Host) *sink {
	t.Helper()
	l, err := host.Listen(":4317")
	if err != nil {
		t.Fatal(err)
	}
	heard := &sink{heard: map[string]bool{}}
	server := grpc.NewServer()
	collector.RegisterMetricsServiceServer(server, heard)
	go func() { _ = server.Serve(l) }() // until it is stopped
	t.Cleanup(server.Stop)
	return heard
}
