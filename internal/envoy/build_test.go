package envoy

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/tailxds/tailxds/internal/policy"
	"github.com/tailxds/tailxds/internal/policy/policytest"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/topology/topologytest"
)

// build builds for callers of no region and of two.
func build(top topology.Topology, p policy.Policy, defaultService string, last *Resources) (*Resources, error) {
	return Build(Input{Topology: top, Policy: p, DefaultService: defaultService, Regions: []string{"x", "y"}}, last)
}

func mustBuild(t *testing.T, top topology.Topology, p policy.Policy, last *Resources) *Resources {
	t.Helper()
	next, err := build(top, p, "server", last)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// parseChecked reads a policy as the control plane does.
func parseChecked(text string) (policy.Policy, error) {
	p, err := policy.Parse([]byte(text))
	if err != nil {
		return policy.Policy{}, err
	}
	return p, CheckPolicy(p)
}

func mustParse(t *testing.T, text string) policy.Policy {
	t.Helper()
	p, err := parseChecked(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// asked is the name under which the cluster of a service asks for its endpoints.
func (n *Resources) asked(service string) string {
	return n.all[Cds][service].(*cluster.Cluster).GetEdsClusterConfig().GetServiceName()
}

// served are the weights of the assignment of a name; nil if there is none.
func (n *Resources) served(name string) map[string]uint32 {
	cla, ok := n.all[Eds][name].(*endpoint.ClusterLoadAssignment)
	if !ok {
		return nil
	}
	got := make(map[string]uint32)
	for _, l := range cla.GetEndpoints() {
		for _, e := range l.GetLbEndpoints() {
			got[e.GetEndpoint().GetHostname()] = e.GetLoadBalancingWeight().GetValue()
		}
	}
	return got
}

// An Envoy asks anew only for a name that it has not: so a changed cluster has
// another, and one that did not change keeps its own.
func TestBuild_changedCluster_asksForItsEndpointsAnew(t *testing.T) {
	first := mustBuild(t, topologytest.OneService(), policy.Default(), nil)
	name := first.asked("server")
	if name == "server" || first.served(name) == nil || !maps.Equal(first.served(name), first.served("server")) {
		t.Fatalf("the cluster asks for %q, and there is %v", name, slices.Sorted(maps.Keys(first.all[Eds])))
	}
	if twin := mustBuild(t, topologytest.OneService(), policy.Default(), nil); twin.asked("server") != name {
		t.Errorf("another control plane says %q, want %q", twin.asked("server"), name)
	}

	moved := mustBuild(t, topologytest.Of(map[string][]string{"d1": {"tag:weight-7"}}), policy.Default(), first)
	if moved.asked("server") != name || moved.served(name)["d1"] != 7 {
		t.Errorf("endpoints alone changed, and the cluster asks for %q, which has %v", moved.asked("server"), moved.served(name))
	}
	if changed := changedSince(first.all[Cds], moved.all[Cds]); len(changed) != 0 {
		t.Errorf("endpoints alone changed, and so did the clusters %v", changed)
	}

	// The route alone has the timeout.
	routed := mustBuild(t, topologytest.OneService(), mustParse(t, "defaults: {timeout: 1s}"), first)
	if routed.asked("server") != name {
		t.Errorf("the route alone changed, and the cluster asks for %q", routed.asked("server"))
	}

	edited := mustBuild(t, topologytest.OneService(), mustParse(t, "defaults: {connect_timeout: 1s}"), first)
	if edited.asked("server") == name || edited.served(edited.asked("server")) == nil {
		t.Errorf("the cluster changed, and asks for %q", edited.asked("server"))
	}
}

// Envoys that have not taken the newest cluster, or refuse it, still follow
// the endpoints; those of clusters long gone do not pile up.
func TestBuild_earlierAssignments_areKept(t *testing.T) {
	last := mustBuild(t, topologytest.OneService(), policy.Default(), nil)
	asked := []string{last.asked("server")}
	for _, timeout := range []string{"1s", "3s", "4s"} {
		last = mustBuild(t, topologytest.OneService(), mustParse(t, "defaults: {connect_timeout: "+timeout+"}"), last)
		asked = append(asked, last.asked("server"))
	}
	last = mustBuild(t, topologytest.Of(map[string][]string{"d1": {"tag:weight-7"}}), mustParse(t, "defaults: {connect_timeout: 4s}"), last)
	for i, name := range asked {
		if got, want := last.served(name)["d1"] == 7, i > 0; got != want {
			t.Errorf("%s, asked for %d edits ago: served %t, want %t", name, len(asked)-1-i, got, want)
		}
	}
	if gone := mustBuild(t, topology.Topology{}, policy.Default(), last); len(gone.all[Eds]) != 1 {
		t.Errorf("without the service there is more than the local cluster: %v", slices.Sorted(maps.Keys(gone.all[Eds])))
	}
}

// The name of a service never reaches the default service, whoever serves it.
func TestBuild_serviceOfPolicy_hasItsHost(t *testing.T) {
	all := mustBuild(t, topologytest.OneService(), mustParse(t, "services: {shop: {hosts: [shop.example.com]}}"), nil)
	got := make(map[string]string)
	for _, v := range all.all[rds][IngressListener].(*route.RouteConfiguration).GetVirtualHosts() {
		for _, d := range v.GetDomains() {
			got[d] = v.GetName()
		}
	}
	want := map[string]string{"*": "server", "shop": "shop", "shop.*": "shop", "shop.example.com": "shop"}
	if !maps.Equal(got, want) {
		t.Errorf("hosts: %v, want %v", got, want)
	}
	if endpoints := all.served(all.asked("shop")); endpoints == nil || len(endpoints) != 0 {
		t.Errorf("endpoints: %v, want none, and that said", endpoints)
	}
}

func TestBuild_invalidUTF8_isLeftOut(t *testing.T) {
	top := topologytest.OneService()
	top.Services[0].Localities[0].Endpoints[0].Name = "d\xff1"
	all := mustBuild(t, top, policy.Default(), nil)
	if _, err := proto.Marshal(all.all[Eds]["server"]); err != nil {
		t.Error(err)
	}
}

func TestBuild_invalidAllow_isRefused(t *testing.T) {
	for _, allow := range [][]string{nil, {""}, {"everybody"}} {
		p := policy.Default()
		p.Ingress.Allow = allow
		if _, err := build(topologytest.OneService(), p, "server", nil); err == nil {
			t.Errorf("built with allow %q", allow)
		}
	}
}

// What parses can be built, after whatever was there before: a policy must not
// stand in the way of later changes.
func TestBuild_anyParsedPolicy_isBuilt(t *testing.T) {
	tag := rapid.SampledFrom([]string{"tag:weight-1", "tag:weight-0", "tag:service-a", "tag:service-b", "tag:service-web", "tag:service-c", "tag:region-x"})
	taken := 0
	rapid.Check(t, func(t *rapid.T) {
		var last *Resources
		for range 4 {
			p, err := policy.Parse([]byte(policytest.Draw(t)))
			if err != nil {
				continue
			}
			taken++
			devices := make(map[string][]string)
			for _, id := range []string{"d1", "d2", "d3"} {
				devices[id] = rapid.SliceOfN(tag, 0, 3).Draw(t, id)
			}
			next, err := build(topologytest.Of(devices), p, "server", last)
			if err != nil {
				t.Fatal(err)
			}
			for service := range next.all[Cds] {
				if next.served(next.asked(service)) == nil {
					t.Fatalf("%s asks for endpoints that are not there: %s", service, next.asked(service))
				}
			}
			last = next
		}
	})
	if taken == 0 {
		t.Error("none of the policies was taken")
	}
}

// What is taken over from the last build is what would be built anew, in each
// view: only names of earlier assignments are served besides.
func TestBuild_withAndWithoutLast_areEqual(t *testing.T) {
	tag := rapid.SampledFrom([]string{"tag:weight-1", "tag:weight-2", "tag:weight-0", "tag:service-a", "tag:service-b", "tag:service-web", "tag:region-x", "tag:region-y"})
	compared := 0
	rapid.Check(t, func(t *rapid.T) {
		devices, p, defaultService := make(map[string][]string), policy.Default(), "server"
		var last *Resources
		for range 6 {
			switch rapid.IntRange(0, 3).Draw(t, "what changes") {
			case 0, 1:
				devices[rapid.SampledFrom([]string{"d1", "d2", "d3"}).Draw(t, "device")] = rapid.SliceOfN(tag, 0, 3).Draw(t, "tags")
			case 2:
				if parsed, err := policy.Parse([]byte(policytest.Draw(t))); err == nil {
					p = parsed
				}
			default:
				defaultService = rapid.SampledFrom([]string{"server", "a"}).Draw(t, "default")
			}
			top := topologytest.Of(devices)
			next, err := build(top, p, defaultService, last)
			anew, errAnew := build(top, p, defaultService, nil)
			if (err == nil) != (errAnew == nil) {
				t.Fatalf("%v, and anew %v", err, errAnew)
			}
			if err != nil {
				continue
			}
			for _, url := range []string{Cds, lds, rds} {
				sameResources(t, next.all[url], anew.all[url], false)
				sameResources(t, next.named[url], anew.named[url], false)
			}
			for _, region := range []string{"", "x"} {
				got, err := next.InRegion(Eds, region)
				if err != nil {
					t.Fatal(err)
				}
				want, err := anew.InRegion(Eds, region)
				if err != nil {
					t.Fatal(err)
				}
				sameResources(t, got, want, true)
			}
			compared++
			last = next
		}
	})
	if compared == 0 {
		t.Error("nothing was compared")
	}
}

// sameResources wants two sets to be the same, but for assignments of earlier
// clusters.
func sameResources(t *rapid.T, got, want resourceSet, earlier bool) {
	for name, r := range want {
		if !proto.Equal(got[name], r) {
			t.Fatalf("%s is\n%v, and anew\n%v", name, got[name], r)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok && (!earlier || !strings.Contains(name, "/")) {
			t.Fatalf("%s is left over", name)
		}
	}
}

// changedSince returns the resources of next that last lacks or has otherwise.
func changedSince(last, next resourceSet) resourceSet {
	changed := make(resourceSet)
	for name, r := range next {
		if last[name] != r {
			changed[name] = r
		}
	}
	return changed
}

const (
	lds = resourcev3.ListenerType
	rds = resourcev3.RouteType
	Cds = resourcev3.ClusterType
	Eds = resourcev3.EndpointType
)

// Whatever Build yields passes Envoy's own validation and grpc-go's strict
// reader.
func TestBuild_anyInput_isValid(t *testing.T) {
	tag := rapid.SampledFrom([]string{
		"tag:weight-0", "tag:weight-1", "tag:weight-1000", "tag:service-a", "tag:service-b", "tag:region-x", "tag:region-y",
		"tag:zone-1", "tag:port-80", "tag:priority-0", "tag:priority-5", "tag:priority-128", "tag:other", "tag:weight-x",
	})
	device := rapid.Custom(func(t *rapid.T) topology.Device {
		return topology.Device{
			ID:        rapid.StringMatching(`[0-9]{1,2}`).Draw(t, "id"),
			Addresses: rapid.SliceOfN(rapid.SampledFrom([]string{"100.64.0.1", "100.64.0.2", "100.64.0.3", "fd7a:115c:a1e0::3"}), 0, 2).Draw(t, "addresses"),
			Tags:      rapid.SliceOfN(tag, 0, 5).Draw(t, "tags"),
			Online:    rapid.Bool().Draw(t, "online"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		top, _ := topology.Build(rapid.SliceOfN(device, 0, 12).Draw(t, "devices"), topologytest.Rules())
		all, err := Render(top, policy.Default(), "server") // validates by protoc-gen-validate
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range all {
			if cla, ok := r.Message.(*endpoint.ClusterLoadAssignment); ok {
				if err := strictly(cla); err != nil {
					t.Fatalf("%v: %v", err, cla)
				}
			}
		}
	})
}

// strictly holds an assignment to the rules of grpc-go's endpoint reader,
// which refuses more than Envoy does:
// https://github.com/grpc/grpc-go/blob/master/internal/xds/xdsclient/xdsresource/unmarshal_eds.go
func strictly(cla *endpoint.ClusterLoadAssignment) error {
	priorities := make(map[uint32]map[string]bool)
	sums := make(map[uint32]uint64)
	addresses := make(map[string]bool)
	for _, l := range cla.GetEndpoints() {
		if l.GetLocality() == nil || l.GetLoadBalancingWeight().GetValue() == 0 {
			return errors.New("a locality without ID or weight")
		}
		p := l.GetPriority()
		if sums[p] += uint64(l.GetLoadBalancingWeight().GetValue()); sums[p] > 1<<32-1 {
			return errors.New("the localities' weights overflow")
		}
		if priorities[p] == nil {
			priorities[p] = make(map[string]bool)
		}
		id := fmt.Sprint(l.GetLocality().GetRegion(), "/", l.GetLocality().GetZone())
		if priorities[p][id] {
			return fmt.Errorf("locality %s twice in priority %d", id, p)
		}
		priorities[p][id] = true
		var sum uint64
		for _, e := range l.GetLbEndpoints() {
			a := e.GetEndpoint().GetAddress().GetSocketAddress()
			address := net.JoinHostPort(a.GetAddress(), fmt.Sprint(a.GetPortValue()))
			if sum += uint64(e.GetLoadBalancingWeight().GetValue()); e.GetLoadBalancingWeight().GetValue() == 0 || addresses[address] {
				return fmt.Errorf("endpoint %s has weight 0 or stands there twice", address)
			}
			addresses[address] = true
		}
		if sum != uint64(l.GetLoadBalancingWeight().GetValue()) {
			return fmt.Errorf("the weight of locality %s is not the sum of its endpoints'", id)
		}
	}
	for i := range uint32(len(priorities)) {
		if priorities[i] == nil {
			return fmt.Errorf("priority %d is missing", i)
		}
	}
	return nil
}
