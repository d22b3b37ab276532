package envoy

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	wrrlocality "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/wrr_locality/v3"
	"google.golang.org/protobuf/proto"

	"github.com/tailxds/tailxds/internal/policy"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/topology/topologytest"
)

// strictGRPC is a reader that rejects what any of grpc-go 1.85, grpc-java 1.85,
// grpc-js-xds 1.14 and the C core 1.85 rejects as a whole, and more: all that is
// not known to be taken by each of them. integration/grpc runs the clients
// themselves.
type strictGRPC struct {
	clusters, assignments resourceSet
	errors                []string
}

func (g *strictGRPC) reject(format string, args ...any) {
	g.errors = append(g.errors, fmt.Sprintf(format, args...))
}

// listener follows a listener to all that it leads to.
func (g *strictGRPC) listener(l *listener.Listener) {
	if size := proto.Size(l); size > maxGRPCListener {
		g.reject("%d bytes", size)
	}
	manager := &hcm.HttpConnectionManager{}
	if err := l.GetApiListener().GetApiListener().UnmarshalTo(manager); err != nil {
		g.reject("no HTTP connection manager: %v", err)
		return
	}
	filters := manager.GetHttpFilters()
	if len(filters) != 1 || filters[0].GetTypedConfig().MessageName() != "envoy.extensions.filters.http.router.v3.Router" {
		g.reject("filters %v: the last must be the router, and others may be unknown", filters)
	}
	hosts := manager.GetRouteConfig().GetVirtualHosts()
	if len(hosts) != 1 || !slices.Equal(hosts[0].GetDomains(), []string{"*"}) || hosts[0].GetRetryPolicy() != nil || len(hosts[0].GetTypedPerFilterConfig()) > 0 {
		g.reject("virtual hosts %v", hosts)
		return
	}
	for _, r := range hosts[0].GetRoutes() {
		g.route(r)
	}
}

func (g *strictGRPC) route(r *route.Route) {
	m := r.GetMatch()
	switch path := m.GetPathSpecifier().(type) {
	case *route.RouteMatch_Prefix, *route.RouteMatch_Path:
	default:
		g.reject("path by %T", path)
	}
	if !m.GetCaseSensitive().GetValue() {
		g.reject("grpc-java compares the path of %v without case", m)
	}
	for _, h := range m.GetHeaders() {
		if h.GetStringMatch().GetExact() == "" {
			g.reject("header by %T", h.GetHeaderMatchSpecifier())
		}
	}
	if f := m.GetRuntimeFraction().GetDefaultValue(); f.GetNumerator() > policy.Million {
		g.reject("fraction %v", f)
	}
	action := r.GetRoute()
	if action == nil {
		g.reject("action %T", r.GetAction())
		return
	}
	if action.GetRetryPolicy() != nil || action.GetMaxStreamDuration().GetMaxStreamDuration().AsDuration()%time.Millisecond != 0 {
		g.reject("action %v", action)
	}
	c, ok := g.clusters[action.GetCluster()].(*cluster.Cluster)
	if !ok {
		g.reject("no cluster %q", action.GetCluster())
		return
	}
	g.cluster(c)
}

func (g *strictGRPC) cluster(c *cluster.Cluster) {
	if c.GetType() != cluster.Cluster_EDS || c.GetEdsClusterConfig().GetEdsConfig().GetAds() == nil {
		g.reject("cluster %s of type %v", c.GetName(), c.GetClusterDiscoveryType())
	}
	if c.GetTransportSocket() != nil || c.GetLrsServer() != nil || c.GetOutlierDetection() != nil || len(c.GetTransportSocketMatches()) > 0 {
		g.reject("cluster %s has what we never set", c.GetName())
	}
	if p := c.GetLoadBalancingPolicy(); p != nil {
		g.balancing(p)
	} else if c.GetLbPolicy() != cluster.Cluster_ROUND_ROBIN && c.GetLbPolicy() != cluster.Cluster_RING_HASH {
		g.reject("cluster %s with %v", c.GetName(), c.GetLbPolicy())
	}
	a, ok := g.assignments[c.GetEdsClusterConfig().GetServiceName()].(*endpoint.ClusterLoadAssignment)
	if !ok { // a client waits for it for 15 s
		g.reject("no assignment %q", c.GetEdsClusterConfig().GetServiceName())
		return
	}
	g.assignment(a)
}

// balancing rejects a list without a policy that all know; also one within another,
// since a client takes the outer one before it looks into it.
func (g *strictGRPC) balancing(p *cluster.LoadBalancingPolicy) {
	for _, candidate := range p.GetPolicies() {
		config := candidate.GetTypedExtensionConfig().GetTypedConfig()
		switch config.MessageName() {
		case "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin":
			return
		case "envoy.extensions.load_balancing_policies.wrr_locality.v3.WrrLocality":
			outer := &wrrlocality.WrrLocality{}
			if err := config.UnmarshalTo(outer); err != nil {
				g.reject("wrr_locality: %v", err)
				return
			}
			g.balancing(outer.GetEndpointPickingPolicy())
			return
		}
	}
	g.reject("a list of policies that grpc-js-xds does not know: %v", p)
}

func (g *strictGRPC) assignment(a *endpoint.ClusterLoadAssignment) {
	names, addresses := map[string]bool{}, map[netip.AddrPort]bool{}
	weights := map[uint32]uint64{}
	for _, l := range a.GetEndpoints() {
		at := l.GetLocality()
		if at == nil {
			g.reject("a locality without a name")
			continue
		}
		name := strings.Join([]string{at.GetRegion(), at.GetZone(), at.GetSubZone()}, "/")
		if names[name] { // grpc-java keeps the last, also of another priority
			g.reject("locality %q twice", name)
		}
		names[name] = true
		if l.GetLoadBalancingWeight().GetValue() == 0 || len(l.GetLbEndpoints()) == 0 {
			g.reject("locality %q is empty", name)
		}
		weights[l.GetPriority()] += uint64(l.GetLoadBalancingWeight().GetValue())
		for _, e := range l.GetLbEndpoints() {
			address, err := netip.ParseAddrPort(addressOf(e))
			if err != nil || addresses[address] || e.GetLoadBalancingWeight().GetValue() == 0 || e.GetHealthStatus() != core.HealthStatus_UNKNOWN {
				g.reject("endpoint %v: twice, or %v", e, err)
			}
			addresses[address] = true
		}
	}
	for priority := range uint32(len(weights)) {
		if weights[priority] == 0 || weights[priority] > math.MaxUint32 {
			g.reject("priority %d has the weight %d", priority, weights[priority])
		}
	}
}

// drawGRPCPolicy draws a policy with what concerns gRPC clients.
func drawGRPCPolicy(t *rapid.T) string {
	one := func(label string, of ...string) string { return rapid.SampledFrom(of).Draw(t, label) }
	text := "services:\n"
	for _, name := range []string{"a", "b", "c"} {
		text += fmt.Sprintf("  %s: {protocol: %s, locality: %s, timeout: %s, %s, routes: [", name, one("protocol", policy.HTTP1, policy.HTTP2, policy.GRPC, policy.GRPC),
			one("locality", "weighted", "exact", "local", "'local', failover: [y]"), one("timeout", "0", "1ms", "24h"),
			one("balancing", "load_balancing: round_robin", "load_balancing: "+policy.ByLoad, "load_balancing: "+policy.ByLoad, "load_balancing: maglev, hash_on: {header: x}"))
		for range rapid.IntRange(0, 3).Draw(t, "rules") {
			text += fmt.Sprintf("{path: %s, headers: {%s}, %s}, ", one("path", "/", "/acme.Shop", "/acme.Shop/Get", "/a/b/c", "'/A//b'"), one("headers", "", "x-user: t", "x-bin: '1', te: trailers"),
				one("to", "service: a", "service: b", "service: gone", "split: {a: 1, c: 3, gone: 2}", "split: {b: 0, gone: 1}"))
		}
		text += "]}\n"
	}
	return text
}

// drawDevices draws up to six servers of the services of drawGRPCPolicy.
func drawDevices(t *rapid.T) map[string][]string {
	devices := make(map[string][]string)
	for i := range rapid.IntRange(0, 6).Draw(t, "devices") {
		var tags []string
		for _, tag := range []struct{ name, of string }{{"service", "abc"}, {"region", "xy"}, {"zone", "12"}, {"priority", "012"}, {"weight", "129"}} {
			if v := rapid.SampledFrom(strings.Split(tag.of+"-", "")).Draw(t, tag.name); v != "-" {
				tags = append(tags, "tag:"+tag.name+"-"+v)
			}
		}
		devices[fmt.Sprintf("d%d", i+1)] = tags
	}
	return devices
}

// Whatever the policy and whoever serves, no gRPC client rejects anything, from
// whichever region it calls, and each route leads to an assignment.
func TestBuild_anyPolicyAndDevices_noGRPCClientRejects(t *testing.T) {
	listeners := 0
	rapid.Check(t, func(t *rapid.T) {
		var last *Resources
		for range 3 {
			p, err := parseChecked(drawGRPCPolicy(t))
			if err != nil {
				continue // such as failover for a service that is not local
			}
			next, err := build(topologytest.Of(drawDevices(t)), p, "server", last)
			if err != nil {
				t.Fatal(err)
			}
			for _, region := range []string{"", "x", "y"} {
				assignments, err := next.InRegion(Eds, region)
				if err != nil {
					t.Fatal(err)
				}
				for name := range next.services {
					l, ok := next.named[lds][name].(*listener.Listener)
					if !ok {
						continue
					}
					listeners++
					g := &strictGRPC{clusters: next.named[Cds], assignments: assignments}
					g.listener(l)
					if len(g.errors) > 0 {
						t.Fatalf("from region %q, listener %s: %s", region, name, strings.Join(g.errors, "\n"))
					}
				}
			}
			last = next
		}
	})
	if listeners == 0 {
		t.Error("no policy was taken")
	}
}

// A rule may name what gRPC clients cannot reach. The cluster that it leads them to
// is then empty, and has servers as soon as they come.
func TestBuild_ruleToUnreachableService_emptyCluster(t *testing.T) {
	p := mustParse(t, "defaults: {protocol: grpc}\nservices: {hello: {routes: [{path: /x, split: {late: 1, plain: 1}}]}, plain: {protocol: http1}}")
	endpoints := func(built *Resources, name string) int {
		t.Helper()
		if _, ok := built.named[Cds][name]; !ok {
			t.Errorf("no cluster %s", name)
		}
		a, ok := built.all[Eds][name].(*endpoint.ClusterLoadAssignment)
		if !ok {
			t.Fatalf("no assignment %s", name)
		}
		return len(a.GetEndpoints())
	}
	devices := map[string][]string{"d1": {"tag:service-hello"}, "d2": {"tag:service-plain"}}
	before, err := build(topologytest.Of(devices), p, "server", nil)
	if err != nil {
		t.Fatal(err)
	}
	if late, plain, hello := endpoints(before, "late/grpc"), endpoints(before, "plain/grpc"), endpoints(before, "hello/grpc"); late != 0 || plain != 0 || hello != 1 {
		t.Errorf("endpoints of late: %d, plain: %d, hello: %d", late, plain, hello)
	}
	devices["d3"] = []string{"tag:service-late"}
	after, err := build(topologytest.Of(devices), p, "server", before)
	if err != nil {
		t.Fatal(err)
	}
	if late := endpoints(after, "late/grpc"); late != 1 {
		t.Errorf("endpoints of late, now served: %d", late)
	}
	again, err := build(topologytest.Of(map[string][]string{"d1": devices["d1"], "d2": devices["d2"]}), p, "server", after)
	if err != nil {
		t.Fatal(err)
	}
	if late := endpoints(again, "late/grpc"); late != 0 {
		t.Errorf("endpoints of late, served no more: %d", late)
	}
	if !proto.Equal(again.all[Eds]["plain/grpc"], before.all[Eds]["plain/grpc"]) {
		t.Error("the assignment of plain changed")
	}
}

// The rules that fail gRPC calls are problems, until they do no more.
func TestProblems_ruleFailsGRPCCalls_named(t *testing.T) {
	p := mustParse(t, "services: {hello: {protocol: grpc, routes: [{service: plain}]}, h2c: {protocol: http2, routes: [{service: plain}]}, plain: {}}")
	problems := func(p policy.Policy) (all []string) {
		for _, problem := range p.Problems(topology.Topology{}) {
			all = append(all, problem.Subject+": "+problem.Reason)
		}
		return all
	}
	if got := problems(p); len(got) != 1 || !strings.Contains(got[0], "routes of hello: plain has protocol: http1: gRPC calls") {
		t.Errorf("problems: %q", got)
	}
	p = mustParse(t, "services: {hello: {protocol: grpc, routes: [{service: plain}]}, plain: {protocol: http2}}")
	if got := problems(p); len(got) != 0 {
		t.Errorf("problems of rules that work: %q", got)
	}
}

// A listener that a gRPC client would close its stream over is refused in the file.
func TestParsePolicy_tooMuchForGRPCClients_refused(t *testing.T) {
	rule := "{headers: {" + strings.Repeat("x", 200) + ": " + strings.Repeat("y", 900) + "}, split: {a: 1, b: 1, c: 1, d: 1, e: 1, f: 1, g: 1, h: 1, i: 1, j: 1}}"
	routes := "routes: [" + strings.Repeat(rule+", ", 99) + rule + "]"
	if _, err := parseChecked("services: {hello: {protocol: grpc, " + routes + "}}"); err == nil || !strings.Contains(err.Error(), "services.hello.routes") || !strings.Contains(err.Error(), "gRPC client") {
		t.Errorf("error: %v", err)
	}
	if _, err := parseChecked("services: {hello: {" + routes + "}}"); err != nil {
		t.Errorf("for Envoys alone: %v", err)
	}
}
