package controlplanetest

import (
	"context"
	"errors"
	"fmt"
	"net"
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

// Envoy is a client that speaks delta ADS, takes all it is sent, and knows what
// an Envoy in its place would do.
type Envoy struct {
	c    *Control
	Stop context.CancelFunc

	Mu        sync.Mutex
	endpoints map[string]string // "a=1 b=2", by cluster
	Hosts     map[string]string // the service, by domain
	err       error
}

// Connect opens a stream to the control plane from an address on loopback.
func (c *Control) Connect(from string, clusters ...string) *Envoy {
	c.T.Helper()
	return c.ConnectBy(func(ctx context.Context, address string) (net.Conn, error) {
		return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext(ctx, "tcp", address)
	}, clusters...)
}

// ConnectBy opens a stream to the control plane over a connection of the test's choice.
func (c *Control) ConnectBy(dial func(context.Context, string) (net.Conn, error), clusters ...string) *Envoy {
	c.T.Helper()
	var address string
	c.Await("the xDS port", func() bool {
		address = c.addresses().XDS
		return address != ""
	})
	conn, err := grpc.NewClient("passthrough:"+address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(dial))
	if err != nil {
		c.T.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	e := &Envoy{c: c, endpoints: map[string]string{}, Hosts: map[string]string{}}
	var stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	c.Await("a stream", func() bool {
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
	e.Stop = func() { cancel(); <-done; _ = conn.Close() }
	c.T.Cleanup(e.Stop)
	return e
}

type deltaStream = discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient

func (e *Envoy) subscribe(stream deltaStream, clusters []string) error {
	return errors.Join(
		stream.Send(&discovery.DeltaDiscoveryRequest{Node: &core.Node{Id: "test"}, TypeUrl: resource.EndpointType, ResourceNamesSubscribe: clusters}),
		stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: resource.RouteType, ResourceNamesSubscribe: []string{"ingress"}}),
	)
}

func (e *Envoy) follow(stream deltaStream) {
	for {
		response, err := stream.Recv()
		if err == nil {
			err = e.take(stream, response)
		}
		if err != nil {
			e.Mu.Lock()
			e.err = err
			e.Mu.Unlock()
			return
		}
	}
}

// take applies a response and acknowledges it.
func (e *Envoy) take(stream deltaStream, response *discovery.DeltaDiscoveryResponse) error {
	e.Mu.Lock()
	defer e.Mu.Unlock()
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
			clear(e.Hosts)
			for _, v := range config.GetVirtualHosts() {
				for _, domain := range v.GetDomains() {
					e.Hosts[domain] = v.GetName()
				}
			}
		}
	}
	for _, name := range response.GetRemovedResources() {
		delete(e.endpoints, name)
	}
	return stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: response.GetTypeUrl(), ResponseNonce: response.GetNonce()})
}

// Has returns the endpoints of a cluster that it was sent, "a=1 b=2".
func (e *Envoy) Has(cluster string) string {
	e.Mu.Lock()
	defer e.Mu.Unlock()
	return e.endpoints[cluster]
}

// Host is the service that requests for a host name go to.
func (e *Envoy) Host(name string) string {
	e.Mu.Lock()
	defer e.Mu.Unlock()
	if service, ok := e.Hosts[name]; ok {
		return service
	}
	return e.Hosts["*"]
}

// Await waits until a cluster has these endpoints.
func (e *Envoy) Await(cluster, want string) {
	e.c.T.Helper()
	e.c.Await(cluster+" to be "+want, func() bool { return e.Has(cluster) == want })
}

// Keeps waits until the control plane has judged for some time more, and fails
// if a cluster has not these endpoints then.
func (e *Envoy) Keeps(long time.Duration, cluster, want string) {
	e.c.T.Helper()
	e.c.Passes(long)
	if got := e.Has(cluster); got != want {
		e.c.T.Errorf("%s has %q, want %q", cluster, got, want)
	}
}

// Passes waits until lists have come for some time more.
func (c *Control) Passes(long time.Duration) {
	c.T.Helper()
	until := time.Now().Add(long)
	c.Await(fmt.Sprintf("lists for %v more", long), func() bool { return c.Status().Provider.LastGood.After(until) })
}

// WantHeld fails unless the service is held, and every place says so.
func (c *Control) WantHeld(service, why string) {
	c.T.Helper()
	c.Await(service+" to be held: "+why, func() bool {
		return slices.ContainsFunc(c.Status().Held, func(h guard.Held) bool { return h.Service == service && strings.Contains(h.Reason, why) })
	})
	if _, detail := c.Do("GET", "/readyz"); !strings.Contains(detail, "ready, but a new device list is held: ") || !strings.Contains(detail, why) {
		c.T.Errorf("/readyz does not say what is held: %s", detail)
	}
	if _, metrics := c.Do("GET", "/metrics"); !strings.Contains(metrics, `tailxds_provider_held{provider="`) || !strings.Contains(metrics, `tailxds_held_endpoints{service="`+service+`"}`) {
		c.T.Error("the metrics do not say what is held")
	}
	if out := c.Log.String(); !strings.Contains(out, `msg="a device list is held" service=`+service) {
		c.T.Errorf("the log does not say what is held:\n%s", out)
	}
}
