package envoy

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxy "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	upstreamhttp "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/tailxds/tailxds/internal/topology/topologytest"
)

// Where a policy sets a timeout to 0, Envoy must be told so: it has timeouts of its own
// for each that is left out.
func TestBuild_timeoutsOfZero_areToldToEnvoy(t *testing.T) {
	built := buildOf(t, "services: {a: {timeout: 0s, stream_idle_timeout: 0s, idle_timeout: 0s, routes: [{path: /x, service: a}]}, b: {protocol: tcp, listen: 1}}")
	none := func(what string, d *durationpb.Duration) {
		t.Helper()
		if d == nil || d.AsDuration() != 0 {
			t.Errorf("%s is %v, want 0, in so many words", what, d)
		}
	}
	routes := 0
	for _, r := range built.all[resourcev3.RouteType] {
		for _, host := range r.(*route.RouteConfiguration).GetVirtualHosts() {
			for _, r := range host.GetRoutes() {
				if action := r.GetRoute(); action != nil && host.GetName() == "a" {
					routes++
					none("the timeout of "+r.GetName(), action.GetTimeout())
					none("the idle timeout of "+r.GetName(), action.GetIdleTimeout())
					if action.GetMaxStreamDuration() != nil || action.GetFlushTimeout() != nil || action.GetRetryPolicy().GetPerTryIdleTimeout() != nil {
						t.Errorf("%s bounds streams otherwise: %v", r.GetName(), action)
					}
				}
			}
		}
	}
	managers := 0
	for _, r := range built.all[resourcev3.ListenerType] {
		for _, chain := range r.(*listener.Listener).GetFilterChains() {
			for _, filter := range chain.GetFilters() {
				m := new(hcm.HttpConnectionManager)
				if filter.GetTypedConfig() == nil || filter.GetTypedConfig().UnmarshalTo(m) != nil {
					continue
				}
				managers++
				// It holds until the route is known, whose own holds from then on.
				if m.GetStreamIdleTimeout().AsDuration() != unrouted {
					t.Errorf("before a route is known, silence is bounded by %v", m.GetStreamIdleTimeout())
				}
				common := m.GetCommonHttpProtocolOptions()
				if m.GetRequestTimeout() != nil || m.GetStreamFlushTimeout() != nil || common.GetMaxStreamDuration() != nil || common.GetMaxConnectionDuration() != nil {
					t.Errorf("the connection manager bounds streams otherwise: %v", m)
				}
				if len(m.GetUpgradeConfigs()) != 1 || m.GetUpgradeConfigs()[0].GetUpgradeType() != "websocket" {
					t.Errorf("upgrades are %v", m.GetUpgradeConfigs())
				}
			}
		}
	}
	proxy := new(tcpproxy.TcpProxy)
	if err := built.all[resourcev3.ExtensionConfigType]["tcp-b"].(*core.TypedExtensionConfig).GetTypedConfig().UnmarshalTo(proxy); err != nil {
		t.Fatal(err)
	}
	none("the idle timeout of a tcp service", proxy.GetIdleTimeout())
	if proxy.GetMaxDownstreamConnectionDuration() != nil {
		t.Errorf("connections of a tcp service end after %v", proxy.GetMaxDownstreamConnectionDuration())
	}
	none("the idle timeout of connections to servers", upstreamOptions(t, built, "a").GetCommonHttpProtocolOptions().GetIdleTimeout())
	if routes != 8 || managers == 0 {
		t.Errorf("%d routes and %d connection managers were looked at", routes, managers)
	}
}

// What the defaults are, and that a value gets where it belongs.
func TestBuild_timeouts_reachEnvoy(t *testing.T) {
	built := buildOf(t, "services: {a: {stream_idle_timeout: 7s, idle_timeout: 3s, retry_buffer: 2MiB}, b: {protocol: tcp, listen: 1, stream_idle_timeout: 9s}, c: {retries: 0}}")
	for _, host := range built.all[resourcev3.RouteType][IngressListener].(*route.RouteConfiguration).GetVirtualHosts() {
		want := map[string]struct {
			idle   time.Duration
			buffer uint64
		}{"a": {7 * time.Second, 2 << 20}, "server": {0, 8 << 20}, "c": {0, 0}}
		for _, r := range host.GetRoutes() {
			if w, ok := want[host.GetName()]; ok && (r.GetRoute().GetIdleTimeout().AsDuration() != w.idle || r.GetRequestBodyBufferLimit().GetValue() != w.buffer) {
				t.Errorf("%s: %v, want %v", r.GetName(), r, w)
			}
		}
	}
	proxy := new(tcpproxy.TcpProxy)
	if err := built.all[resourcev3.ExtensionConfigType]["tcp-b"].(*core.TypedExtensionConfig).GetTypedConfig().UnmarshalTo(proxy); err != nil {
		t.Fatal(err)
	}
	if got := proxy.GetIdleTimeout().AsDuration(); got != 9*time.Second {
		t.Errorf("the connections of b end after %s of silence", got)
	}
	for service, want := range map[string]time.Duration{"a": 3 * time.Second, "server": 4 * time.Second} {
		if got := upstreamOptions(t, built, service).GetCommonHttpProtocolOptions().GetIdleTimeout().AsDuration(); got != want {
			t.Errorf("idle connections to servers of %s end after %s, want %s", service, got, want)
		}
	}
}

// A check does not go over a connection that servers may have closed since the last.
func TestHealthCheck_longInterval_connectsAnew(t *testing.T) {
	for text, want := range map[string]bool{
		"health_check: {interval: 1s}":                   true,
		"health_check: {interval: 5s}":                   false,
		"health_check: {interval: 5s}, idle_timeout: 0s": true,
	} {
		p := mustParse(t, "defaults: {"+text+"}")
		if got := healthCheck("a", p.Defaults).GetReuseConnection(); (got == nil || got.GetValue()) != want {
			t.Errorf("%s: reuses its connection: %v, want %t", text, got, want)
		}
	}
}

// Only what an edit of the ingress names is another listener, and only its part of it.
func TestBuildListeners_editOfIngress_keepsFilterChains(t *testing.T) {
	chains := func(text string) map[string]*listener.FilterChain {
		all := make(map[string]*listener.FilterChain)
		for name, r := range buildOf(t, text+"\nservices: {b: {protocol: tcp, listen: 1}}").all[resourcev3.ListenerType] {
			for _, chain := range r.(*listener.Listener).GetFilterChains() {
				all[name+" "+chain.GetName()] = chain
			}
		}
		return all
	}
	before := chains("ingress: {access_log: none}")
	for text, more := range map[string]int{
		"ingress: {access_log: all}":                           0,
		"ingress: {access_log: errors}":                        0,
		"ingress: {allow: [tailnet, loopback, 10.0.0.0/8]}":    2, // requests and b
		"ingress: {allow: [tailnet, loopback, '2001:db8::1']}": 2,
		"defaults: {retries: 1, stream_idle_timeout: 5s}":      0,
	} {
		after := chains(text)
		if len(after) != len(before)+more {
			t.Errorf("%s: %d filter chains, want %d", text, len(after), len(before)+more)
		}
		for name, chain := range before {
			if !proto.Equal(chain, after[name]) {
				t.Errorf("%s: the chain %s is another: %v", text, name, after[name])
			}
		}
	}
	// This one has to be another: the test can tell.
	for name, chain := range chains("ingress: {trusted_hops: 1}") {
		if name == IngressListener+" 127.0.0.0/8" && proto.Equal(chain, before[name]) {
			t.Error("an edit of trusted_hops changes no chain")
		}
	}
}

func buildOf(t *testing.T, policy string) *Resources {
	t.Helper()
	built, err := build(topologytest.Of(map[string][]string{"d1": {"tag:weight-1"}, "d2": {"tag:service-a"}}), mustParse(t, policy), "server", nil)
	if err != nil {
		t.Fatal(err)
	}
	return built
}

func upstreamOptions(t *testing.T, built *Resources, service string) *upstreamhttp.HttpProtocolOptions {
	t.Helper()
	options := new(upstreamhttp.HttpProtocolOptions)
	packed := built.all[resourcev3.ClusterType][service].(*cluster.Cluster).GetTypedExtensionProtocolOptions()["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"]
	if err := packed.UnmarshalTo(options); err != nil {
		t.Fatal(err)
	}
	return options
}
