package main

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// burst counts what reaches a client while one weight is changed 1,000 times a
// second, and looks whether the last weight is the one that it has at last.
func burst(ctx context.Context, s sizes) (_ figure, err error) {
	const perSecond, last = 1_000, 100
	ours, err := begin(ctx, setup{Kind: "watched", Services: 1, Endpoints: 100, Clients: 10})
	if err != nil {
		return figure{}, err
	}
	defer func() { err = errors.Join(err, ours.end()) }()
	ours.round.Store(newRound(-1)) // any number may come
	before := ours.all[0].pushes.Load()
	if _, err := ours.tell(command{Burst: s.seconds, PerSecond: perSecond, Change: last}); err != nil {
		return figure{}, err
	}
	pushes := float64(ours.all[0].pushes.Load()-before) / float64(s.seconds)
	weight, err := weightIn(ours.lastOf(resource.EndpointType))
	if err != nil {
		return figure{}, err
	}
	return figure{
		value: fmt.Sprintf("%.1f a second", pushes), ok: pushes <= 20 && weight == last+2,
		detail: fmt.Sprintf("%d changes; the last weight was %d, and the client has %d.", perSecond*s.seconds, last+2, weight),
	}, nil
}

// weightIn is the weight that a response gives the first endpoint.
func weightIn(response []byte) (uint32, error) {
	var r discovery.DeltaDiscoveryResponse
	if err := proto.Unmarshal(response, &r); err != nil {
		return 0, fmt.Errorf("read a response: %w", err)
	}
	for _, one := range r.GetResources() {
		var a endpoint.ClusterLoadAssignment
		if err := one.GetResource().UnmarshalTo(&a); err != nil {
			return 0, fmt.Errorf("read an assignment: %w", err)
		}
		for _, l := range a.GetEndpoints() {
			for _, e := range l.GetLbEndpoints() {
				if e.GetEndpoint().GetHostname() == "device-0" {
					return e.GetLoadBalancingWeight().GetValue(), nil
				}
			}
		}
	}
	return 0, errors.New("the last response has no device-0")
}
