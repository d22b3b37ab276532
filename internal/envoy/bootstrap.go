package envoy

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	bootstrap "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	metrics "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	overload "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	commondns "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/common/dns/v3"
	dnscluster "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	cares "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3"
	connections "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	otel "github.com/envoyproxy/go-control-plane/envoy/extensions/stat_sinks/open_telemetry/v3"
	detectors "github.com/envoyproxy/go-control-plane/envoy/extensions/tracers/opentelemetry/resource_detectors/v3"
	upstreamhttp "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"

	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/yamldoc"
)

// BootstrapConfig is what an Envoy must know by itself; all else comes from the
// control plane.
type BootstrapConfig struct {
	// ControlPlanes are where it is found: one, or several that agree.
	ControlPlanes []HostPort
	// Node and Cluster are the Envoy's names, for people. Envoy requires both.
	Node, Cluster string
	// Region is where it is; it is read as the tag of a device is. The Zone is
	// only reported: Envoy compares all of a locality's name with its own, and
	// here a region is what is near.
	Region, Zone string
	// Admin is the address of Envoy's own pages, which can change and stop it.
	Admin HostPort
	// Metrics is where /metrics is shown to Prometheus, if anywhere.
	Metrics *HostPort
	// DNS is who knows the control planes' names, if they are no addresses.
	DNS netip.AddrPort
	// Collectors are further receivers of OpenTelemetry metrics. They get all that
	// the Envoy measures.
	Collectors []HostPort
	// ReportEvery is how often it reports; 0 is [DefaultReportEvery].
	ReportEvery time.Duration
}

// controlPlane is the name of the cluster that the bootstrap finds the control
// plane by.
const controlPlane = "control_plane"

const (
	// maxDownstream is how many connections an Envoy takes; Envoy warns of
	// none.
	maxDownstream = 50_000
)

// Bootstrap is the whole bootstrap of an Envoy.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/overview/bootstrap
func Bootstrap(c BootstrapConfig) (*bootstrap.Bootstrap, error) {
	if len(c.ControlPlanes) == 0 {
		return nil, errors.New("name the control plane: --control-plane tsnet-dynamic-eds.example.ts.net")
	}
	c, err := c.normalized()
	if err != nil {
		return nil, err
	}
	clusters, err := bootstrapClusters(c)
	if err != nil {
		return nil, err
	}
	sinks, err := statsSinks(c)
	if err != nil {
		return nil, err
	}
	static := &bootstrap.Bootstrap_StaticResources{Clusters: clusters}
	if c.Metrics != nil {
		page, pages, err := metricsPage(*c.Metrics, c.Admin)
		if err != nil {
			return nil, err
		}
		static.Listeners, static.Clusters = append(static.Listeners, page), append(static.Clusters, pages)
	}
	every := cmp.Or(c.ReportEvery, DefaultReportEvery)
	if every < ShortestReportEvery || every > LongestReportEvery || every%time.Millisecond != 0 {
		return nil, fmt.Errorf("an Envoy can report every %s to %s in whole milliseconds, not every %s", ShortestReportEvery, LongestReportEvery, every)
	}
	limit, err := anypb.New(&connections.DownstreamConnectionsConfig{MaxActiveDownstreamConnections: maxDownstream})
	if err != nil {
		return nil, fmt.Errorf("pack the limit of connections: %w", err)
	}
	b := &bootstrap.Bootstrap{
		Node: &core.Node{Id: c.Node, Cluster: c.Cluster, Locality: &core.Locality{Region: c.Region}},
		DynamicResources: &bootstrap.Bootstrap_DynamicResources{
			AdsConfig: &core.ApiConfigSource{
				ApiType:             core.ApiConfigSource_DELTA_GRPC,
				TransportApiVersion: core.ApiVersion_V3,
				// An Envoy's node names all that it is built of, some 60 KB. Sent with each
				// answer, it would fill a relay's queue for a moment, and whatever else goes
				// that way, requests too, would be lost with it.
				SetNodeOnFirstMessageOnly: true,
				GrpcServices: []*core.GrpcService{{
					TargetSpecifier: &core.GrpcService_EnvoyGrpc_{EnvoyGrpc: &core.GrpcService_EnvoyGrpc{
						ClusterName: controlPlane,
						// Ask again soon while the control plane is away, and not for
						// ever faster.
						RetryPolicy: &core.RetryPolicy{RetryBackOff: &core.BackoffStrategy{
							BaseInterval: durationpb.New(250 * time.Millisecond), MaxInterval: durationpb.New(5 * time.Second),
						}},
					}},
				}},
			},
			LdsConfig: fromADS(),
			CdsConfig: fromADS(),
		},
		ClusterManager:     &bootstrap.ClusterManager{LocalClusterName: LocalCluster},
		StaticResources:    static,
		StatsSinks:         sinks,
		StatsFlushInterval: durationpb.New(every),
		StatsConfig:        statsConfig(),
		Admin:              &bootstrap.Admin{Address: socketAddress(c.Admin.Host, c.Admin.Port)},
		OverloadManager: &overload.OverloadManager{ResourceMonitors: []*overload.ResourceMonitor{{
			Name:       "envoy.resource_monitors.global_downstream_max_connections",
			ConfigType: &overload.ResourceMonitor_TypedConfig{TypedConfig: limit},
		}}},
	}
	if err := b.ValidateAll(); err != nil {
		return nil, fmt.Errorf("validate the bootstrap: %w", err)
	}
	return b, nil
}

// normalized checks the names, and folds the case of region and zone as tags do:
// an Envoy in "West" would be near to no endpoint in "west".
func (c BootstrapConfig) normalized() (BootstrapConfig, error) {
	for _, name := range []struct{ flag, value string }{{"--node", c.Node}, {"--cluster", c.Cluster}} {
		if strings.TrimSpace(name.value) == "" {
			return c, fmt.Errorf("%s is empty: Envoy needs a name, such as west-1", name.flag)
		}
	}
	for _, name := range []struct {
		flag  string
		value *string
	}{{"--region", &c.Region}, {"--zone", &c.Zone}} {
		if *name.value == "" {
			continue
		}
		folded, err := topology.ParseName(*name.value)
		if err != nil {
			return c, fmt.Errorf("%s is %q: it %w", name.flag, *name.value, err)
		}
		*name.value = folded
	}
	return c, nil
}

// BootstrapYAML is [Bootstrap] as Envoy's --config-path takes it.
func BootstrapYAML(c BootstrapConfig) ([]byte, error) {
	b, err := Bootstrap(c)
	if err != nil {
		return nil, err
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("write the bootstrap: %w", err)
	}
	if text, err = yamldoc.FromJSON(text); err != nil {
		return nil, fmt.Errorf("write the bootstrap: %w", err)
	}
	return append([]byte(forEnvoys), text...), nil
}

// forEnvoys is the comment above a bootstrap. An Envoy that is older says no more
// than that it does not know SinkConfig.DropAction.
const forEnvoys = "# For Envoy 1.37 to 1.40. An older one does not start by it.\n"

// What a [BootstrapConfig] has by default.
const (
	// DefaultPort is the control plane's.
	DefaultPort = 18000
	// DefaultAdminPort is that of Envoy's own pages, on loopback.
	DefaultAdminPort = 9901
	// MagicDNS is where tailscaled answers for names of the tailnet.
	// https://tailscale.com/kb/1081/magicdns
	MagicDNS = "100.100.100.100"
	// DefaultReportEvery is how often an Envoy reports what it measured. A thousand
	// Envoys of fifty endpoints cost the control plane a tenth of a core at this
	// pace (BenchmarkExport in internal/report).
	DefaultReportEvery = 5 * time.Second
	// ShortestReportEvery and LongestReportEvery bound it: what is reported more
	// seldom is no live figure any more.
	ShortestReportEvery = time.Second
	LongestReportEvery  = time.Minute
)

func bootstrapClusters(c BootstrapConfig) ([]*cluster.Cluster, error) {
	protocol, err := anypb.New(&upstreamhttp.HttpProtocolOptions{
		UpstreamProtocolOptions: &upstreamhttp.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: &upstreamhttp.HttpProtocolOptions_ExplicitHttpConfig{
			ProtocolConfig: &upstreamhttp.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: &core.Http2ProtocolOptions{
				// Notices within seconds that the other end has gone, also when its
				// network has.
				ConnectionKeepalive: &core.KeepaliveSettings{Interval: durationpb.New(10 * time.Second), Timeout: durationpb.New(5 * time.Second)},
			}},
		}},
	})
	if err != nil {
		return nil, fmt.Errorf("pack upstream protocol options: %w", err)
	}
	make := func(name string, at []HostPort) (*cluster.Cluster, error) {
		made := &cluster.Cluster{
			Name:                          name,
			ConnectTimeout:                durationpb.New(5 * time.Second),
			TypedExtensionProtocolOptions: map[string]*anypb.Any{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol},
			LoadAssignment:                &endpoint.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpoint.LocalityLbEndpoints{{}}},
		}
		named := false
		for _, hp := range at {
			_, err := netip.ParseAddr(hp.Host)
			named = named || err != nil
			made.LoadAssignment.Endpoints[0].LbEndpoints = append(made.LoadAssignment.Endpoints[0].LbEndpoints, &endpoint.LbEndpoint{
				HostIdentifier: &endpoint.LbEndpoint_Endpoint{Endpoint: &endpoint.Endpoint{Address: socketAddress(hp.Host, hp.Port)}},
			})
		}
		made.ClusterDiscoveryType = &cluster.Cluster_Type{Type: cluster.Cluster_STATIC}
		if !named {
			return made, nil
		}
		return made, resolveByDNS(made, c.DNS)
	}
	main, err := make(controlPlane, c.ControlPlanes)
	if err != nil {
		return nil, err
	}
	all := []*cluster.Cluster{main, {
		Name:                 LocalCluster,
		ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_EDS},
		EdsClusterConfig:     &cluster.Cluster_EdsClusterConfig{EdsConfig: fromADS(), ServiceName: LocalCluster},
		ConnectTimeout:       durationpb.New(time.Second),
	}}
	for i, at := range c.Collectors {
		collector, err := make(collectorName(i), []HostPort{at})
		if err != nil {
			return nil, err
		}
		all = append(all, collector)
	}
	return all, nil
}

func collectorName(i int) string { return fmt.Sprintf("collector_%d", i+1) }

// resolveByDNS makes a cluster ask for names.
func resolveByDNS(c *cluster.Cluster, dns netip.AddrPort) error {
	// Only tailscaled knows MagicDNS names, and it answers on its own address.
	resolver, err := anypb.New(&cares.CaresDnsResolverConfig{
		Resolvers:          []*core.Address{socketAddress(dns.Addr().String(), dns.Port())},
		DnsResolverOptions: &core.DnsResolverOptions{NoDefaultSearchDomain: true},
	})
	if err != nil {
		return fmt.Errorf("pack the DNS resolver: %w", err)
	}
	config, err := anypb.New(&dnscluster.DnsCluster{
		DnsRefreshRate:         durationpb.New(15 * time.Second),
		DnsFailureRefreshRate:  &dnscluster.DnsCluster_RefreshRate{BaseInterval: durationpb.New(500 * time.Millisecond), MaxInterval: durationpb.New(5 * time.Second)},
		DnsLookupFamily:        commondns.DnsLookupFamily_V4_PREFERRED,
		TypedDnsResolverConfig: &core.TypedExtensionConfig{Name: "envoy.network.dns_resolver.cares", TypedConfig: resolver},
	})
	if err != nil {
		return fmt.Errorf("pack the DNS cluster: %w", err)
	}
	c.ClusterDiscoveryType = &cluster.Cluster_ClusterType{ClusterType: &cluster.Cluster_CustomClusterType{Name: "envoy.clusters.dns", TypedConfig: config}}
	return nil
}

// statsSinks report what the Envoy measures to the control plane, and to collectors.
func statsSinks(c BootstrapConfig) ([]*metrics.StatsSink, error) {
	attributes := map[string]string{"service.instance.id": c.Node}
	if c.Region != "" {
		attributes["cloud.region"] = c.Region
	}
	if c.Zone != "" {
		attributes["cloud.availability_zone"] = c.Zone
	}
	where, err := anypb.New(&detectors.StaticConfigResourceDetectorConfig{Attributes: attributes})
	if err != nil {
		return nil, fmt.Errorf("pack what an Envoy says of itself: %w", err)
	}
	to := []string{controlPlane}
	for i := range c.Collectors {
		to = append(to, collectorName(i))
	}
	used, err := usedMetricsMatcher()
	if err != nil {
		return nil, err
	}
	var all []*metrics.StatsSink
	for _, name := range to {
		sink := &otel.SinkConfig{
			ProtocolSpecifier: &otel.SinkConfig_GrpcService{GrpcService: &core.GrpcService{
				TargetSpecifier: &core.GrpcService_EnvoyGrpc_{EnvoyGrpc: &core.GrpcService_EnvoyGrpc{ClusterName: name}},
			}},
			// Totals, for the control plane: reading /stats of Envoy takes from
			// what it has counted for each endpoint since the last report.
			ReportCountersAsDeltas:   name != controlPlane,
			ReportHistogramsAsDeltas: true,
			EmitTagsAsAttributes:     wrapperspb.Bool(true),
			UseTagExtractedName:      wrapperspb.Bool(true),
			ResourceDetectors:        []*core.TypedExtensionConfig{{Name: "envoy.tracers.opentelemetry.resource_detectors.static_config", TypedConfig: where}},
		}
		if name == controlPlane {
			sink.CustomMetricConversions = used
		}
		config, err := anypb.New(sink)
		if err != nil {
			return nil, fmt.Errorf("pack the OpenTelemetry sink: %w", err)
		}
		all = append(all, &metrics.StatsSink{Name: "envoy.stat_sinks.open_telemetry", ConfigType: &metrics.StatsSink_TypedConfig{TypedConfig: config}})
	}
	return all, nil
}
