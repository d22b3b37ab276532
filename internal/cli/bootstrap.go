package cli

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"github.com/tailxds/tailxds/internal/envoy"
	"github.com/tailxds/tailxds/internal/input"
	"github.com/tailxds/tailxds/internal/topology"
)

// bootstrapCommand prints what an Envoy must know by itself.
func bootstrapCommand() *cobra.Command {
	var o struct {
		controlPlanes, otlp                                      []string
		node, region, zone, admin, metrics, dns, cluster, output string
		reportEvery                                              time.Duration
	}
	cmd := &cobra.Command{
		Use:   "bootstrap --control-plane HOST[:PORT]…",
		Short: "Print an Envoy's bootstrap, as YAML",
		Example: "  tailxds bootstrap --control-plane tsnet-dynamic-eds.example.ts.net --node west-1 --region west > envoy.yaml\n" +
			"  tailxds bootstrap --control-plane 100.64.0.1,100.64.0.2 --node west-1 --envoy-metrics 0.0.0.0:9902 --output envoy.yaml",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := envoy.BootstrapConfig{Node: o.node, Cluster: o.cluster, Region: o.region, Zone: o.zone, ReportEvery: o.reportEvery}
			if o.reportEvery < envoy.ShortestReportEvery || o.reportEvery > envoy.LongestReportEvery {
				return invalidValue("--report-every", o.reportEvery.String(), fmt.Sprintf("a time from %s to %s", envoy.ShortestReportEvery, envoy.LongestReportEvery))
			}
			var err error
			if c.ControlPlanes, err = hostPorts("--control-plane", o.controlPlanes, envoy.DefaultPort); err != nil {
				return err
			}
			if c.Collectors, err = hostPorts("--otlp", o.otlp, 4317); err != nil {
				return err
			}
			admin, err := hostPorts("--envoy-admin", []string{o.admin}, envoy.DefaultAdminPort)
			if err != nil {
				return err
			}
			c.Admin = admin[0]
			if o.metrics != "" {
				metrics, err := hostPorts("--envoy-metrics", []string{o.metrics}, envoy.DefaultMetricsPort)
				if err != nil {
					return err
				}
				c.Metrics = &metrics[0]
			}
			if c.DNS, err = resolverAddress(o.dns); err != nil {
				return err
			}
			text, err := envoy.BootstrapYAML(c)
			if err != nil {
				return err
			}
			if o.output == "" || o.output == "-" {
				_, err = cmd.OutOrStdout().Write(text)
				return err
			}
			return writeFile(o.output, text)
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&o.controlPlanes, "control-plane", nil, "name or address of the control plane on the tailnet; port 18000 unless told; several may be given")
	flags.StringVar(&o.node, "node", "envoy", "the Envoy's name, for people")
	flags.StringVar(&o.cluster, "cluster", "tailxds", "the name of all Envoys of its kind")
	flags.StringVar(&o.region, "region", "", "the region that the Envoy is in")
	flags.StringVar(&o.zone, "zone", "", "the zone that the Envoy is in")
	flags.StringVar(&o.admin, "envoy-admin", "127.0.0.1:9901", "address of Envoy's own pages")
	flags.StringVar(&o.metrics, "envoy-metrics", "", "address where Envoy shows /metrics to Prometheus, and none of its other pages, such as 0.0.0.0:9902")
	flags.StringVar(&o.dns, "dns", envoy.MagicDNS, "who knows the control plane's name")
	flags.DurationVar(&o.reportEvery, "report-every", envoy.DefaultReportEvery, "how often the Envoy reports what it measured: longer where there are thousands")
	flags.StringVar(&o.output, "output", "", "write it to this file; - is standard output")
	flags.StringSliceVar(&o.otlp, "otlp", nil, "OpenTelemetry collectors that get the Envoy's metrics, too")
	underHeadings(cmd, bootstrapHeadings()...)
	return cmd
}

// writeFile writes a file whole or not at all, since Envoy may be about to read
// it. A device or a pipe is written as it is. Errors name path, and not the file
// that becomes it.
func writeFile(path string, text []byte) error {
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		err = syscall.EISDIR
	case err == nil && !info.Mode().IsRegular():
		err = os.WriteFile(path, text, 0o644)
	default:
		err = renameio.WriteFile(path, text, 0o644)
	}
	if number := syscall.Errno(0); errors.As(err, &number) {
		return fmt.Errorf("write %s: %w", path, number)
	} else if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// hostPorts reads names or addresses, each with a port or without.
func hostPorts(flag string, texts []string, port uint16) ([]envoy.HostPort, error) {
	var all []envoy.HostPort
	for _, text := range texts {
		if a, err := netip.ParseAddr(text); err == nil { // fd7a::1 has colons, too
			all = append(all, envoy.HostPort{Host: a.String(), Port: port})
			continue
		}
		host, number, err := net.SplitHostPort(text)
		if err != nil {
			host, number = text, strconv.Itoa(int(port))
		}
		n, err := strconv.ParseUint(number, 10, 16)
		if _, isAddress := netip.ParseAddr(host); err != nil || n == 0 || (isAddress != nil && !isHostName(host)) {
			return nil, fmt.Errorf("%s %s: give a name or an address, with a port or without, such as tsnet-dynamic-eds.example.ts.net:%d", flag, input.Quoted(text), port)
		}
		all = append(all, envoy.HostPort{Host: host, Port: uint16(n)})
	}
	return all, nil
}

func resolverAddress(text string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.AddrPortFrom(a, 53), nil
	}
	a, err := netip.ParseAddrPort(text)
	if err != nil {
		return a, fmt.Errorf("--dns %s: give an IP address, with a port or without, such as 100.100.100.100", input.Quoted(text))
	}
	return a, nil
}

// isHostName reports whether text can be a DNS name.
func isHostName(text string) bool {
	for label := range strings.SplitSeq(strings.TrimSuffix(text, "."), ".") {
		if topology.ValidName(label) != nil {
			return false
		}
	}
	return len(text) <= 253
}
