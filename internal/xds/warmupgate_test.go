package xds

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/tailxds/tailxds/internal/topology"

	"github.com/tailxds/tailxds/internal/envoy"
	"github.com/tailxds/tailxds/internal/topology/topologytest"
)

// withAnother is [oneService] and one more.
func withAnother() topology.Topology {
	return topologytest.Of(map[string][]string{"d1": {"tag:weight-1"}, "d2": {"tag:weight-5"}, "d3": {"tag:service-another"}})
}

// An Envoy answers new clusters once they are warm. Endpoints must not wait for
// that, and routes must.
func TestWarmupGate_routes_waitForClusters(t *testing.T) {
	for name, rejected := range map[string]*rpcstatus.Status{"taken": nil, "rejected": {Message: "no"}} {
		t.Run("delta, "+name, func(t *testing.T) {
			s, _ := logged()
			stream := openDelta(t, start(t, s))
			for url, names := range map[string]string{Cds: "*", rds: envoy.IngressListener, Eds: "server"} {
				stream.ask(url, nil, names)
				stream.want(url, "")
			}
			stream.settle()
			set(t, s, withAnother())
			stream.want(Eds, "")
			clusters, err := stream.Recv()
			if err != nil || clusters.GetTypeUrl() != Cds {
				t.Fatalf("got %v, %v; want clusters", clusters, err)
			}
			stream.ask(Eds, nil, "another")
			stream.want(Eds, "") // and not the routes, which were published long ago
			stream.send(&discovery.DeltaDiscoveryRequest{TypeUrl: Cds, ResponseNonce: clusters.GetNonce(), ErrorDetail: rejected})
			stream.want(rds, "")
		})
		t.Run("state of the world, "+name, func(t *testing.T) {
			s, _ := logged()
			stream := openWorld(t, start(t, s))
			for url, names := range map[string][]string{Cds: nil, rds: {envoy.IngressListener}, Eds: {"server"}, lds: nil} {
				stream.ask(url, names...)
				stream.want(url)
			}
			stream.settle()
			set(t, s, withAnother())
			stream.want(Eds)
			clusters, err := stream.Recv()
			if err != nil || clusters.GetTypeUrl() != Cds {
				t.Fatalf("got %v, %v; want clusters", clusters, err)
			}
			stream.ask(Eds, "server", "another")
			stream.want(Eds)
			answer := &discovery.DiscoveryRequest{TypeUrl: Cds, ResponseNonce: clusters.GetNonce(), ErrorDetail: rejected}
			if rejected == nil {
				answer.VersionInfo = clusters.GetVersionInfo()
			}
			stream.send(answer)
			stream.want(rds)
		})
	}
}

// An Envoy that never answers gets its routes all the same.
func TestWarmupGate_timeout_releasesRoutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent []string
		s := warmupGate{send: func(m any) error {
			sent = append(sent, m.(response).GetNonce())
			return nil
		}}
		put := func(url, nonce string) {
			t.Helper()
			if err := s.forward(&discovery.DeltaDiscoveryResponse{TypeUrl: url, Nonce: nonce}); err != nil {
				t.Fatal(err)
			}
		}
		is := func(want ...string) {
			t.Helper()
			synctest.Wait()
			s.mu.Lock()
			defer s.mu.Unlock()
			if !slices.Equal(sent, want) {
				t.Errorf("sent %q, want %q", sent, want)
			}
		}
		put(rds, "1")
		put(Cds, "2")
		put(rds, "3")
		put(lds, "4")
		put(Eds, "5")
		time.Sleep(maxHold - time.Millisecond)
		is("1", "2", "5")
		time.Sleep(time.Millisecond)
		is("1", "2", "5", "3", "4")

		put(Cds, "6") // nobody waits any more, and the next wait is a whole one
		put(rds, "7")
		time.Sleep(maxHold / 2)
		if err := s.release(Cds, "2"); err != nil { // late
			t.Fatal(err)
		}
		is("1", "2", "5", "3", "4", "6")
		time.Sleep(maxHold / 2)
		is("1", "2", "5", "3", "4", "6", "7")

		put(Cds, "8")
		put(rds, "9")
		s.close()
		time.Sleep(2 * maxHold)
		is("1", "2", "5", "3", "4", "6", "7", "8")
	})
}
