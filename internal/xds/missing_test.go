package xds

import (
	"slices"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/tailxds/tailxds/internal/topology/topologytest"
)

// "If a resource does not exist, the server tells the client by removed_resources", for
// every type, whoever asks for it and whenever:
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-docs/xds_protocol#knowing-when-a-requested-resource-does-not-exist
func TestDelta_namesThatDoNotExist_removed(t *testing.T) {
	for _, url := range []string{lds, rds, Cds, Eds} {
		t.Run(typeName(url), func(t *testing.T) {
			s, _ := logged()
			stream := openDelta(t, start(t, s))
			wantRemoved := func(names ...string) {
				t.Helper()
				r := stream.want(url, "")
				removed := slices.Sorted(slices.Values(r.GetRemovedResources()))
				if !slices.Equal(removed, names) || len(r.GetResources()) > 0 {
					t.Fatalf("removed are %v and %d resources are sent, want %v and none", removed, len(r.GetResources()), names)
				}
			}
			stream.ask(url, nil, "a", "b")
			wantRemoved("a", "b")
			stream.ask(url, nil, "c")
			wantRemoved("c")
			// Asked for once more, it is told once more.
			stream.ask(url, nil, "a", "a")
			wantRemoved("a")
			// What is given back in the same request is not asked for.
			stream.send(&discovery.DeltaDiscoveryRequest{TypeUrl: url, ResourceNamesSubscribe: []string{"d", "e"}, ResourceNamesUnsubscribe: []string{"d"}})
			wantRemoved("e")
			// After a reconnect, of what was known and of what was not.
			again := openDelta(t, start(t, s))
			again.ask(url, map[string]string{"a": "1"}, "a", "b")
			stream = again
			wantRemoved("a", "b")
		})
	}
}

// Who follows all may ask for a name besides.
func TestDelta_nameBesidesAll_removed(t *testing.T) {
	s, _ := logged()
	stream := openDelta(t, start(t, s))
	stream.ask(Cds, nil, "*", "made-up")
	r := stream.want(Cds, "")
	if len(r.GetResources()) == 0 || !slices.Equal(r.GetRemovedResources(), []string{"made-up"}) {
		t.Errorf("%d resources, and removed are %v", len(r.GetResources()), r.GetRemovedResources())
	}
	stream.ask(Cds, nil, "another")
	if r = stream.want(Cds, ""); len(r.GetResources()) > 0 || !slices.Equal(r.GetRemovedResources(), []string{"another"}) {
		t.Errorf("%d resources, and removed are %v", len(r.GetResources()), r.GetRemovedResources())
	}
}

// What does not exist yet is sent once it does.
func TestDelta_nameThatIsMadeLater_sent(t *testing.T) {
	s, _ := logged()
	stream := openDelta(t, start(t, s))
	stream.ask(Eds, nil, "shop")
	if r := stream.want(Eds, ""); !slices.Equal(r.GetRemovedResources(), []string{"shop"}) {
		t.Fatalf("removed are %v", r.GetRemovedResources())
	}
	set(t, s, topologytest.Of(map[string][]string{"d1": {"tag:weight-1"}, "d2": {"tag:weight-7", "tag:service-shop"}}))
	if got := weights(t, stream.want(Eds, "").GetResources()); got["d2"] != 7 {
		t.Errorf("the endpoints are %v", got)
	}
}
