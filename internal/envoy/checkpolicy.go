package envoy

import (
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/tailxds/tailxds/internal/policy"
	"github.com/tailxds/tailxds/internal/topology"
)

// CheckPolicy builds the resources of a policy that was parsed, and returns why Envoys
// or gRPC clients would not take them. The rules of [policy.Parse] should leave nothing
// that can't be built; where they do, the file is refused here, and not at the next
// change of a device.
func CheckPolicy(p policy.Policy) error {
	sample := topology.Topology{Services: []topology.Service{{Name: "server"}}}
	built, err := buildServices(sample, p, "server", &Resources{})
	if err != nil {
		return fmt.Errorf("no Envoy would take it: %w", err)
	}
	return fitsGRPC(built.named[resource.ListenerType])
}

// maxGRPCListener bounds a listener of gRPC clients, in bytes. They close a stream
// that sends more than 4 MiB at once, and some get several listeners in one message.
const maxGRPCListener = 1 << 20

// fitsGRPC refuses rules that gRPC clients cannot be sent.
func fitsGRPC(listeners resourceSet) error {
	for _, name := range slices.Sorted(maps.Keys(listeners)) {
		if size := proto.Size(listeners[name]); size > maxGRPCListener {
			return fmt.Errorf("services.%s.routes: %d bytes for a gRPC client, which takes at most %d: write fewer rules, fewer services in a split, or shorter headers", name, size, maxGRPCListener)
		}
	}
	return nil
}
