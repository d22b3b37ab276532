package main

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"

	"github.com/tailxds/tailxds/internal/envoy"
	"github.com/tailxds/tailxds/internal/guard"
	"github.com/tailxds/tailxds/internal/policy"
	"github.com/tailxds/tailxds/internal/provider"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/xds"
)

// setup is what a control plane is made with.
type setup struct {
	Kind      string `json:"kind"`
	Services  int    `json:"services"`
	Endpoints int    `json:"endpoints"` // of each service
	Clients   int    `json:"clients"`   // their number, for whom each is a key
	// Payload are the bytes that a bare server sends, by type.
	Payload map[string][]byte `json:"payload,omitempty"`
	// Change are the bytes that it sends for a change.
	Change []byte `json:"change,omitempty"`
	// Servers are ports of servers on this machine, which are the endpoints then;
	// Ingress is the port on which Envoys take requests for them.
	Servers []uint16 `json:"servers,omitempty"`
	Ingress uint16   `json:"ingress,omitempty"`
}

// peer is a control plane whose service s0 can be changed.
type peer interface {
	serve(context.Context, net.Listener) error
	// change gives an endpoint another weight, and publishes that.
	change(ctx context.Context, weight int) error
}

func newPeer(ctx context.Context, s setup) (peer, error) {
	switch s.Kind {
	case "tailxds":
		return newOurs(s)
	case "watched":
		return newWatched(s)
	case "reporting":
		return newReporting()
	case "bare":
		return &bare{setup: s, streams: make(map[chan []byte]bool)}, nil
	case "snapshots":
		return newSnapshots(ctx, s)
	default:
		return nil, fmt.Errorf("there is no peer %q", s.Kind)
	}
}

// world is a list of devices in services of as many.
func world(s setup) []topology.Device {
	if len(s.Servers) > 0 {
		return servers(s.Servers)
	}
	all := make([]topology.Device, s.Services*s.Endpoints)
	for i := range all {
		all[i] = topology.Device{
			ID: fmt.Sprint(i + 1), Name: fmt.Sprintf("device-%d", i), Online: true,
			Addresses: []string{fmt.Sprintf("100.%d.%d.%d", 64+i>>16, i>>8&255, i&255), fmt.Sprintf("fd7a:115c:a1e0::%x", i+1)},
			Tags:      []string{fmt.Sprintf("tag:service-s%d", i/s.Endpoints), "tag:weight-1", "tag:region-west"},
		}
	}
	return all
}

// servers are devices on this machine.
func servers(ports []uint16) []topology.Device {
	all := make([]topology.Device, len(ports))
	for i, port := range ports {
		all[i] = topology.Device{
			ID: fmt.Sprint(i + 1), Name: fmt.Sprintf("device-%d", i), Online: true, Addresses: []string{"127.0.0.1"},
			Tags: append(tagsOf(1), fmt.Sprintf("tag:port-%d", port)),
		}
	}
	return all
}

// tagsOf are those of the first device, with a weight.
func tagsOf(weight int) []string {
	return []string{"tag:service-s0", fmt.Sprintf("tag:weight-%d", weight), "tag:region-west"}
}

func serviceNames(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("s%d", i)
	}
	return all
}

const defaultService = "s0"

// ours is what is measured: from a list of devices to what is published, as the
// control plane's loop goes about it, but for what it writes down and shows.
type ours struct {
	server  *xds.Server
	devices []topology.Device
	policy  policy.Policy
	memory  guard.Memory
	// resources are what is published.
	resources *envoy.Resources
}

func newOurs(s setup) (*ours, error) {
	o := &ours{server: xds.NewServer(xds.Config{Types: envoy.Types(), PeerLimits: manyPeers()}), devices: world(s), policy: policy.Default()}
	if s.Ingress != 0 {
		o.policy.Ingress.Port = s.Ingress
	}
	return o, o.publish()
}

// manyPeers are the limits of one peer that stands for many: all clients of a
// measurement have one address.
func manyPeers() xds.PeerLimits {
	return xds.PeerLimits{Connections: 100_000, Streams: 100_000, Names: 100_000_000, Calls: 100_000, Bytes: 1 << 30}
}

func (o *ours) serve(ctx context.Context, l net.Listener) error { return o.server.Serve(ctx, l) }

func (o *ours) change(_ context.Context, weight int) error {
	o.devices[0].Tags = tagsOf(weight)
	return o.publish()
}

func (o *ours) publish() error { return o.take(o.devices) }

// take builds, judges and publishes a list.
func (o *ours) take(devices []topology.Device) error {
	now, r := time.Now(), rules()
	list := guard.List{Provider: provider.Netmap, Devices: devices, At: now, HealthySince: now}
	memory, stamped := o.memory.Observe(list)
	r.LastGood = memory.LastGood()
	t, problems := topology.Build(stamped, r)
	if len(problems) > 0 {
		return fmt.Errorf("the devices have problems: %v", problems)
	}
	verdict := guard.Decide(memory, guard.Input{Now: now, List: list, Built: t, Connected: o.server.Connected(), HoldFraction: 0.5, HoldFor: time.Minute})
	o.memory = verdict.Memory
	resources, err := envoy.Build(envoy.Input{
		Topology: verdict.Topology, Policy: o.policy, DefaultService: defaultService, Regions: o.server.Regions(), Envoys: o.server.Envoys(),
	}, o.resources)
	if err != nil {
		return err
	}
	o.resources = resources
	o.server.SetAccess(verdict.Topology.Addresses(), verdict.Topology.Regions())
	_, err = o.server.Publish(resources)
	return err
}

func rules() topology.Rules {
	return topology.Rules{DefaultService: defaultService, DefaultPort: 8080, Now: time.Now()}
}

// bare sends bytes to streams, and does nothing else: the least that any control
// plane on gRPC needs.
type bare struct {
	setup

	mu      sync.Mutex
	streams map[chan []byte]bool
}

func (b *bare) serve(ctx context.Context, l net.Listener) error {
	server := grpc.NewServer(grpc.ForceServerCodecV2(raw{}), grpc.UnknownServiceHandler(b.stream))
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	return server.Serve(l)
}

func (b *bare) stream(_ any, s grpc.ServerStream) error {
	changes := make(chan []byte, 1)
	b.mu.Lock()
	b.streams[changes] = true
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(b.streams, changes)
		b.mu.Unlock()
	}()
	asked, over := make(chan string), make(chan struct{})
	defer close(over)
	go func() {
		defer close(asked)
		f := frame{request: true}
		for s.RecvMsg(&f) == nil {
			if f.nonce != "" {
				continue // an answer
			}
			select {
			case asked <- f.typ:
			case <-over:
				return
			}
		}
	}()
	for {
		var next []byte
		select {
		case typ, ok := <-asked:
			if !ok {
				return nil
			}
			next = b.Payload[typ]
		case next = <-changes:
		}
		if err := s.SendMsg(next); err != nil {
			return err
		}
	}
}

// change sends to all, but to who has not read the last change yet: a control
// plane must not wait for it either.
func (b *bare) change(context.Context, int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for to := range b.streams {
		select {
		case to <- b.Change:
		default:
		}
	}
	return nil
}

// snapshots is go-control-plane's cache with a key for each node, the way that
// its documentation shows first. The snapshot is made once a change, not once a
// node.
type snapshots struct {
	setup
	cache     cache.SnapshotCache
	resources map[resource.Type][]types.Resource
	topology  topology.Topology
	version   int
}

func newSnapshots(ctx context.Context, s setup) (*snapshots, error) {
	p := &snapshots{setup: s, cache: cache.NewSnapshotCache(false, cache.IDHash{}, nil), resources: make(map[resource.Type][]types.Resource)}
	p.topology, _ = topology.Build(world(s), rules())
	all, err := envoy.Render(p.topology, policy.Default(), defaultService)
	if err != nil {
		return nil, err
	}
	urls := map[string]resource.Type{
		"endpoints": resource.EndpointType, "clusters": resource.ClusterType, "routes": resource.RouteType, "listeners": resource.ListenerType,
		"extensions": resource.ExtensionConfigType,
	}
	for _, r := range all {
		url, ok := urls[r.Type]
		if !ok {
			return nil, fmt.Errorf("resources of type %q have no type URL here: add it", r.Type)
		}
		p.resources[url] = append(p.resources[url], r.Message)
	}
	return p, p.change(ctx, 1)
}

func (p *snapshots) serve(ctx context.Context, l net.Listener) error {
	server := grpc.NewServer()
	discovery.RegisterAggregatedDiscoveryServiceServer(server, serverv3.NewServer(ctx, p.cache, nil))
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	return server.Serve(l)
}

func (p *snapshots) change(ctx context.Context, weight int) error {
	if err := p.reweigh(weight); err != nil {
		return err
	}
	p.version++
	snapshot, err := cache.NewSnapshot(fmt.Sprint(p.version), p.resources)
	if err != nil {
		return fmt.Errorf("make a snapshot: %w", err)
	}
	for i := range p.Clients {
		if err := p.cache.SetSnapshot(ctx, fmt.Sprintf("n%d", i), snapshot); err != nil {
			return fmt.Errorf("set a snapshot: %w", err)
		}
	}
	return nil
}
