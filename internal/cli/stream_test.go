package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/tailxds/tailxds/internal/guard"
)

// fakeEnvoy is a client that speaks delta ADS, takes all it is sent, and knows what
// an Envoy in its place would do.
type fakeEnvoy struct {
	c    *control
	stop context.CancelFunc

	mu        sync.Mutex
	endpoints map[string]string // "a=1 b=2", by cluster
	hosts     map[string]string // the service, by domain
	err       error
}

// connect opens a stream to the control plane from an address on loopback.
func (c *control) connect(from string, clusters ...string) *fakeEnvoy {
	c.t.Helper()
	return c.connectBy(func(ctx context.Context, address string) (net.Conn, error) {
		return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext(ctx, "tcp", address)
	}, clusters...)
}

// connectBy opens a stream to the control plane over a connection of the test's choice.
func (c *control) connectBy(dial func(context.Context, string) (net.Conn, error), clusters ...string) *fakeEnvoy {
	c.t.Helper()
	var address string
	c.await("the xDS port", func() bool {
		m := regexp.MustCompile(`msg="serving xDS" address=(\S+)`).FindStringSubmatch(c.log.String())
		if m != nil {
			address = m[1]
		}
		return m != nil
	})
	conn, err := grpc.NewClient("passthrough:"+address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(dial))
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	e := &fakeEnvoy{c: c, endpoints: map[string]string{}, hosts: map[string]string{}}
	var stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	c.await("a stream", func() bool {
		stream, err = discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
		if err == nil {
			err = e.subscribe(stream, clusters)
		}
		var first *discovery.DeltaDiscoveryResponse
		if err == nil {
			first, err = stream.Recv() // refused until there is a list
		}
		if err == nil {
			err = e.take(stream, first)
		}
		return err == nil
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.follow(stream)
	}()
	e.stop = func() { cancel(); <-done; _ = conn.Close() }
	c.t.Cleanup(e.stop)
	return e
}

type deltaStream = discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient

func (e *fakeEnvoy) subscribe(stream deltaStream, clusters []string) error {
	return errors.Join(
		stream.Send(&discovery.DeltaDiscoveryRequest{Node: &core.Node{Id: "test"}, TypeUrl: resource.EndpointType, ResourceNamesSubscribe: clusters}),
		stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: resource.RouteType, ResourceNamesSubscribe: []string{"ingress"}}),
	)
}

func (e *fakeEnvoy) follow(stream deltaStream) {
	for {
		response, err := stream.Recv()
		if err == nil {
			err = e.take(stream, response)
		}
		if err != nil {
			e.mu.Lock()
			e.err = err
			e.mu.Unlock()
			return
		}
	}
}

// take applies a response and acknowledges it.
func (e *fakeEnvoy) take(stream deltaStream, response *discovery.DeltaDiscoveryResponse) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range response.GetResources() {
		switch response.GetTypeUrl() {
		case resource.EndpointType:
			var cla endpoint.ClusterLoadAssignment
			if err := proto.Unmarshal(r.GetResource().GetValue(), &cla); err != nil {
				return err
			}
			var all []string
			for _, l := range cla.GetEndpoints() {
				for _, lb := range l.GetLbEndpoints() {
					all = append(all, fmt.Sprintf("%s=%d", lb.GetEndpoint().GetHostname(), lb.GetLoadBalancingWeight().GetValue()))
				}
			}
			slices.Sort(all)
			e.endpoints[r.GetName()] = strings.Join(all, " ")
		case resource.RouteType:
			var config route.RouteConfiguration
			if err := proto.Unmarshal(r.GetResource().GetValue(), &config); err != nil {
				return err
			}
			clear(e.hosts)
			for _, v := range config.GetVirtualHosts() {
				for _, domain := range v.GetDomains() {
					e.hosts[domain] = v.GetName()
				}
			}
		}
	}
	for _, name := range response.GetRemovedResources() {
		delete(e.endpoints, name)
	}
	return stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: response.GetTypeUrl(), ResponseNonce: response.GetNonce()})
}

func (e *fakeEnvoy) has(cluster string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.endpoints[cluster]
}

// host is the service that requests for a host name go to.
func (e *fakeEnvoy) host(name string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if service, ok := e.hosts[name]; ok {
		return service
	}
	return e.hosts["*"]
}

// await waits until a cluster has these endpoints.
func (e *fakeEnvoy) await(cluster, want string) {
	e.c.t.Helper()
	e.c.await(cluster+" to be "+want, func() bool { return e.has(cluster) == want })
}

// keeps waits until the control plane has judged for some time more, and fails
// if a cluster has not these endpoints then.
func (e *fakeEnvoy) keeps(long time.Duration, cluster, want string) {
	e.c.t.Helper()
	e.c.passes(long)
	if got := e.has(cluster); got != want {
		e.c.t.Errorf("%s has %q, want %q", cluster, got, want)
	}
}

// passes waits until lists have come for some time more.
func (c *control) passes(long time.Duration) {
	c.t.Helper()
	until := time.Now().Add(long)
	c.await(fmt.Sprintf("lists for %v more", long), func() bool { return c.status().Provider.LastGood.After(until) })
}

// wantHeld fails unless the service is held, and every place says so.
func (c *control) wantHeld(service, why string) {
	c.t.Helper()
	c.await(service+" to be held: "+why, func() bool {
		return slices.ContainsFunc(c.status().Held, func(h guard.Held) bool { return h.Service == service && strings.Contains(h.Reason, why) })
	})
	if _, detail := c.do("GET", "/readyz"); !strings.Contains(detail, "ready, but a new device list is held: ") || !strings.Contains(detail, why) {
		c.t.Errorf("/readyz does not say what is held: %s", detail)
	}
	if _, metrics := c.do("GET", "/metrics"); !strings.Contains(metrics, `tailxds_provider_held{provider="`) || !strings.Contains(metrics, `tailxds_held_endpoints{service="`+service+`"}`) {
		c.t.Error("the metrics do not say what is held")
	}
	if out := c.log.String(); !strings.Contains(out, `msg="a device list is held" service=`+service) {
		c.t.Errorf("the log does not say what is held:\n%s", out)
	}
}
