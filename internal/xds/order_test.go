package xds

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/tailxds/tailxds/internal/policy"

	"github.com/tailxds/tailxds/internal/envoy"
	"github.com/tailxds/tailxds/internal/topology/topologytest"
)

// follower keeps what an Envoy would of a state-of-the-world stream, and asks
// for the assignments of its clusters as an Envoy does.
type follower struct {
	*worldStream
	clusters    map[string]string // the assignment's name, by cluster
	assignments map[string]bool
	routed      []string // the clusters that routes lead to
}

func follow(t *testing.T, s *testServer) *follower {
	f := &follower{openWorld(t, start(t, s)), nil, make(map[string]bool), nil}
	f.ask(Cds)
	f.take(Cds)
	f.take(Eds)
	f.ask(lds)
	f.take(lds)
	f.ask(rds, envoy.IngressListener)
	f.take(rds)
	f.settle()
	return f
}

// take receives what comes next. It must be of a type, and no route may lead to
// a cluster that is not there.
func (f *follower) take(url string) {
	f.t.Helper()
	if got := f.step(); got != url {
		f.t.Fatalf("got %s, want %s", typeName(got), typeName(url))
	}
}

func (f *follower) step() string {
	f.t.Helper()
	r := f.next()
	switch r.GetTypeUrl() {
	case Cds:
		f.clusters = make(map[string]string) // state of the world: what is missing is gone
		for _, c := range unpack[*cluster.Cluster](f, r) {
			f.clusters[c.GetName()] = c.GetEdsClusterConfig().GetServiceName()
		}
		f.askForAssignments()
	case Eds:
		for _, a := range unpack[interface {
			proto.Message
			GetClusterName() string
		}](f, r) {
			f.assignments[a.GetClusterName()] = true
		}
	case rds:
		f.routed = nil
		for _, c := range unpack[*route.RouteConfiguration](f, r) {
			for _, host := range c.GetVirtualHosts() {
				for _, r := range host.GetRoutes() {
					if to := r.GetRoute(); to != nil { // else Envoy answers by itself
						f.routed = append(f.routed, to.GetCluster())
					}
				}
			}
		}
	}
	for _, to := range f.routed {
		if _, ok := f.clusters[to]; !ok {
			f.t.Errorf("after %s a route leads to %s, which is not there", typeName(r.GetTypeUrl()), to)
		}
	}
	return r.GetTypeUrl()
}

// askForAssignments subscribes to what the clusters name, if that has changed.
func (f *follower) askForAssignments() {
	var names []string
	for _, name := range f.clusters {
		names = append(names, name)
	}
	slices.Sort(names)
	if !slices.Equal(names, f.names[Eds]) {
		f.ask(Eds, names...)
	}
}

func unpack[M proto.Message](f *follower, r *discovery.DiscoveryResponse) []M {
	f.t.Helper()
	var all []M
	for _, packed := range r.GetResources() {
		m, err := packed.UnmarshalNew()
		if err != nil {
			f.t.Fatal(err)
		}
		all = append(all, m.(M))
	}
	return all
}

// One publication that changes all types reaches a state-of-the-world client in
// the order in which it needs them, and what goes, goes last.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-docs/xds_protocol#eventual-consistency-considerations
func TestSotw_changes_areOrdered(t *testing.T) {
	for range 20 { // without an order it is one of 24
		s := newServer()
		set(t, s, topologytest.Of(map[string][]string{"d1": {"tag:weight-1"}, "d2": {"tag:service-old"}}))
		f := follow(t, s)
		p := policy.Default()
		p.Defaults.Timeout, p.Defaults.ConnectTimeout = policy.Duration(time.Minute), policy.Duration(time.Second)
		p.Ingress.Port = 10001
		top := topologytest.Of(map[string][]string{"d1": {"tag:weight-7"}, "d2": {"tag:service-new"}})
		if err := s.publish(top, p); err != nil {
			t.Fatal(err)
		}
		var order []string
		both := false
		for len(f.clusters) != 2 || f.clusters["new"] == "" || !f.assignments[f.clusters["new"]] || !f.assignments[f.clusters["server"]] {
			order = append(order, typeName(f.step()))
			both = both || len(f.clusters) == 3
		}
		if !both {
			t.Errorf("the old cluster goes before the new one comes: %v", order)
		}
		first := slices.CompactFunc(slices.Clone(order), func(a, b string) bool { return a == b })
		if got := strings.Join(first[:min(4, len(first))], " "); got != "endpoints clusters routes listeners" {
			t.Fatalf("they came as %v", order)
		}
	}
}

// A weight's change sends that service's assignment and nothing else: to an Envoy
// with all types one resource, and to one of other services nothing. So does a
// policy that is written anew and says the same, but for the change.
func TestPublish_weight_reachesSubscribersOnly(t *testing.T) {
	devices := func(weight string) map[string][]string {
		return map[string][]string{"d1": {"tag:service-a"}, "d2": {"tag:service-b", "tag:weight-" + weight}, "d3": {"tag:service-b"}}
	}
	const policy = "services: {a: {locality: local, protocol: grpc}, b: {locality: nearest, routes: [{path: /x, service: a}]}}"
	s := newServer()
	publishWeight := func(weight string) {
		t.Helper()
		if err := s.publish(topologytest.Of(devices(weight)), mustParse(t, policy)); err != nil {
			t.Fatal(err)
		}
	}
	publishWeight("1")
	whole := follow(t, s)
	delta := openDelta(t, start(t, s))
	for _, url := range []string{Cds, lds} {
		delta.ask(url, nil, "*")
		delta.want(url, "")
	}
	delta.ask(rds, nil, envoy.IngressListener)
	delta.want(rds, "")
	delta.ask(Eds, nil, s.assignmentOf("a"), s.assignmentOf("b"))
	delta.want(Eds, "")
	other := openDelta(t, start(t, s)) // of service a alone
	other.ask(Eds, nil, s.assignmentOf("a"))
	other.want(Eds, "")

	for _, weight := range []string{"5", "7"} {
		publishWeight(weight)
		b := s.assignmentOf("b")
		if got := unpack[*endpoint.ClusterLoadAssignment](whole, whole.want(Eds)); len(got) != 1 || got[0].GetClusterName() != b {
			t.Errorf("state of the world: sent %v, want %s alone", got, b)
		}
		whole.settle() // so nothing else came
		if r := delta.want(Eds, ""); len(r.GetResources()) != 1 || r.GetResources()[0].GetName() != b {
			t.Errorf("delta: sent %v, want %s alone", r.GetResources(), b)
		}
	}
	// What comes next to each is of a change that does concern it.
	moved := devices("7")
	moved["d1"] = []string{"tag:service-a", "tag:weight-3"}
	if err := s.publish(topologytest.Of(moved), mustParse(t, policy)); err != nil {
		t.Fatal(err)
	}
	for name, stream := range map[string]deltaStream{"all": delta, "a": other} {
		if r := stream.want(Eds, ""); len(r.GetResources()) != 1 || r.GetResources()[0].GetName() != s.assignmentOf("a") {
			t.Errorf("%s: sent %v, want a alone", name, r.GetResources())
		}
	}
}
