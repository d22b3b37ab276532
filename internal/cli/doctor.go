package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	collector "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"tailscale.com/client/local"
	"tailscale.com/ipn/ipnstate"

	"github.com/tailxds/tailxds/internal/api"
	"github.com/tailxds/tailxds/internal/doctor"
	"github.com/tailxds/tailxds/internal/input"
	"github.com/tailxds/tailxds/internal/tailnet"
	"github.com/tailxds/tailxds/internal/version"
)

// hostFlags say what a host examines.
type hostFlags struct{ controlPlane, envoyAdmin, socket string }

func doctorCommand(env environment) *cobra.Command {
	var output string
	var here hostFlags
	cmd := adminCommand(env, "doctor", "Find what is wrong with the tailnet, its policy, the control plane or a server's host",
		func(cmd *cobra.Command, _ []string, c api.Client) error {
			for _, f := range []string{"envoy-admin", "socket"} {
				if cmd.Flags().Changed(f) && here.controlPlane == "" {
					return fmt.Errorf("--%s examines this host: give --control-plane, too", f)
				}
			}
			facts := doctor.Facts{Version: version.Current().Version}
			var err error
			if here.controlPlane != "" || cmd.Flags().Changed("control-plane") {
				facts.Host, err = here.AddFacts(cmd.Context())
			} else {
				facts.ControlPlane, err = controlPlaneFacts(cmd.Context(), c)
			}
			if err != nil {
				return err
			}
			findings := doctor.Examine(facts)
			if output != "table" {
				err = findingsDocument(cmd.OutOrStdout(), findings, output)
			} else {
				err = printFindings(cmd.OutOrStdout(), findings)
			}
			if failed := doctor.Count(findings, doctor.Fail); err == nil && failed > 0 {
				return fmt.Errorf("%d of %d checks failed", failed, len(findings))
			}
			return err
		})
	cmd.Long = `Examine a pool, and say of each thing that is wrong how to mend it. It exits with 1 if a check fails.

Beside the control plane it asks its admin pages. On a server's host, --control-plane HOST examines what that host
needs: the control plane's name and port, whether it lets this host in, the way to it, and the Envoy here.`
	cmd.Example = "  tailxds doctor\n  tailxds doctor --control-plane tsnet-dynamic-eds"
	flags := cmd.Flags()
	outputFlag(flags, &output, "table", "json", "yaml")
	flags.StringVar(&here.controlPlane, "control-plane", "", "examine this host instead: the control plane's host, and its port if that is not 18000")
	flags.StringVar(&here.envoyAdmin, "envoy-admin", "127.0.0.1:9901", "with --control-plane: the admin page of the Envoy here; empty asks none")
	flags.StringVar(&here.socket, "socket", "", "with --control-plane: tailscaled's socket, if it is not where it is by default")
	return cmd
}

// controlPlaneFacts asks the control plane for its own facts.
func controlPlaneFacts(ctx context.Context, c api.Client) (*doctor.ControlPlane, error) {
	var f doctor.ControlPlane
	if _, err := c.Document(ctx, "/doctor", &f); err != nil {
		return nil, err
	}
	return &f, nil
}

// What a host is asked may take so long.
const (
	dialWithin = 5 * time.Second
	callWithin = 5 * time.Second
)

// AddFacts collects what this host knows.
func (h hostFlags) AddFacts(ctx context.Context) (*doctor.Host, error) {
	host, port := h.controlPlane, "18000"
	if name, p, err := net.SplitHostPort(h.controlPlane); err == nil {
		host, port = name, p
	}
	if !input.ValidPort(port) || !input.ValidHost(strings.TrimSuffix(host, ".")) {
		return nil, invalidValue("--control-plane", h.controlPlane, "a host, or host:port, such as tsnet-dynamic-eds:18000")
	}
	f := &doctor.Host{Target: net.JoinHostPort(host, port)}
	address := f.Target
	var err error
	if f.Addresses, err = net.DefaultResolver.LookupNetIP(ctx, "ip", host); err != nil {
		f.ResolveError = err.Error()
		if s, err := h.tailscaled().Status(ctx); err == nil { // or node says why
			f.Addresses = addressesOf(s, host)
		}
		if len(f.Addresses) > 0 {
			address = net.JoinHostPort(f.Addresses[0].String(), port)
		}
	}
	for i, a := range f.Addresses {
		f.Addresses[i] = a.Unmap()
	}
	if len(f.Addresses) > 0 {
		dialXDS(ctx, f, address)
	}
	h.node(ctx, f) // after there was something to send
	h.envoy(ctx, f)
	return f, nil
}

// addressesOf are those of the peer that a node knows by a name, short or full.
func addressesOf(s *ipnstate.Status, name string) []netip.Addr {
	name = strings.TrimSuffix(name, ".")
	for _, p := range s.Peer {
		full := strings.TrimSuffix(p.DNSName, ".")
		short, _, _ := strings.Cut(full, ".")
		if name != "" && (strings.EqualFold(name, full) || strings.EqualFold(name, short)) {
			return slices.Clone(p.TailscaleIPs)
		}
	}
	return nil
}

// dialXDS connects to the control plane, and asks it whether it serves this host:
// by sending it a report of nothing, which it authorizes as a stream. A
// stream would be taken for this host's Envoy.
func dialXDS(ctx context.Context, f *doctor.Host, address string) {
	dialing, cancel := context.WithTimeout(ctx, dialWithin)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(dialing, "tcp", address)
	if err != nil {
		f.DialError = err.Error()
		return
	}
	_ = conn.Close()
	client, err := grpc.NewClient("passthrough:"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		f.CallError = err.Error()
		return
	}
	defer func() { _ = client.Close() }()
	calling, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	_, err = collector.NewMetricsServiceClient(client).Export(calling, &collector.ExportMetricsServiceRequest{})
	switch s := status.Convert(err); s.Code() {
	case codes.OK:
	case codes.PermissionDenied:
		f.Refused = s.Message()
	default:
		f.CallError = s.Message()
	}
}

// tailscaled is that of this host.
func (h hostFlags) tailscaled() *local.Client {
	return &local.Client{Socket: h.socket, UseSocketOnly: h.socket != ""}
}

// node asks the tailscaled of this host.
func (h hostFlags) node(ctx context.Context, f *doctor.Host) {
	s, err := h.tailscaled().Status(ctx)
	if err != nil {
		f.NodeError = err.Error()
		return
	}
	f.Node = tailnet.NodeFacts(s)
	for _, a := range f.Addresses {
		f.Path = tailnet.PathTo(s, a)
		if f.Path != "" {
			return
		}
	}
}

// envoy asks the Envoy of this host.
func (h hostFlags) envoy(ctx context.Context, f *doctor.Host) {
	if h.envoyAdmin == "" {
		return
	}
	var info struct {
		Version string `json:"version"`
	}
	body, err := envoyPage(ctx, h.envoyAdmin, "/server_info")
	if err == nil {
		err = json.Unmarshal(body, &info)
	}
	var stats []byte
	if err == nil {
		stats, err = envoyPage(ctx, h.envoyAdmin, "/stats?"+url.Values{"filter": {`^control_plane\.connected_state$`}}.Encode())
	}
	if err != nil {
		f.EnvoyError = err.Error()
		return
	}
	f.EnvoyVersion = envoyVersion(info.Version)
	f.EnvoyConnected = strings.TrimSpace(string(stats)) == "control_plane.connected_state: 1"
}

// envoyVersion is the number within "<commit>/1.40.0/Clean/RELEASE/BoringSSL".
func envoyVersion(s string) string {
	parts := strings.Split(s, "/")
	if len(parts) < 2 {
		return s
	}
	return parts[1]
}

func envoyPage(ctx context.Context, address, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return nil, fmt.Errorf("--envoy-admin %q: %w", address, err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		var because *url.Error
		if errors.As(err, &because) {
			err = because.Err // the URL says nothing to people
		}
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %s", response.Status)
	}
	return io.ReadAll(io.LimitReader(response.Body, 1<<20))
}

func findingsDocument(out io.Writer, findings []doctor.Finding, format string) error {
	body, err := json.MarshalIndent(struct {
		Findings []doctor.Finding `json:"findings"`
	}{findings}, "", "  ")
	if err != nil {
		return fmt.Errorf("write findings: %w", err)
	}
	return writeDocument(out, append(body, '\n'), format)
}

// printFindings writes findings for people, what to do below what is wrong.
func printFindings(out io.Writer, findings []doctor.Finding) error {
	t := table{tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}
	category := ""
	for _, f := range findings {
		if f.Category != category {
			if category != "" {
				t.row()
			}
			category = f.Category
			t.row(category)
		}
		t.row("  "+string(f.Level), f.Check, f.Text)
		if f.Remedy != "" {
			t.row("", "", "→ "+f.Remedy)
		}
	}
	t.row()
	t.row(fmt.Sprintf("%d passed, %d to look at, %d failed",
		doctor.Count(findings, doctor.Pass), doctor.Count(findings, doctor.Warn), doctor.Count(findings, doctor.Fail)))
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print findings: %w", err)
	}
	return nil
}
