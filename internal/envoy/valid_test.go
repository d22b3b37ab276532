package envoy

import (
	"errors"
	"fmt"
	"net"
	"testing"

	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"pgregory.net/rapid"

	"github.com/tailxds/tailxds/internal/policy"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/topology/topologytest"
)

// Whatever Build yields passes Envoy's own validation and grpc-go's strict
// reader.
func TestWhateverIsBuiltIsValid(t *testing.T) {
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
