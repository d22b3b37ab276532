package xds

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
)

// byType hands each request to the cache of its type. A type that is not served
// gets no answer, as the protocol wants it: go-control-plane's own mux would end
// the whole stream, and with it all types that are served.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-docs/xds_protocol#how-the-client-specifies-what-resources-to-return
type byType map[string]watchable

// watchable is what of a [cache.Cache] is used.
type watchable interface{ cache.ConfigWatcher }

// CreateWatch implements [cache.Cache].
func (b byType) CreateWatch(r *cache.Request, sub cache.Subscription, to chan cache.Response) (func(), error) {
	if c, ok := b[r.GetTypeUrl()]; ok {
		return c.CreateWatch(r, sub, to)
	}
	return func() {}, nil
}

// CreateDeltaWatch implements [cache.Cache].
func (b byType) CreateDeltaWatch(r *cache.DeltaRequest, sub cache.Subscription, to chan cache.DeltaResponse) (func(), error) {
	if c, ok := b[r.GetTypeUrl()]; ok {
		return c.CreateDeltaWatch(r, sub, to)
	}
	return func() {}, nil
}

// Fetch implements [cache.Cache], for REST, which is not served.
func (byType) Fetch(context.Context, *cache.Request) (cache.Response, error) {
	return nil, fmt.Errorf("resources are served by streams only")
}

// quiet answers a rejected state-of-the-world response only once there is
// something new. [cache.LinearCache] answers a request without a version at
// once, and the rejection of a first response has none: the same resource
// would be sent and rejected as fast as the network goes.
type quiet struct {
	*cache.LinearCache
	prefix string
}

// CreateWatch implements [cache.Cache].
func (q quiet) CreateWatch(r *cache.Request, sub cache.Subscription, to chan cache.Response) (func(), error) {
	if r.GetErrorDetail() != nil && len(sub.ReturnedResources()) > 0 {
		// A version of ours makes the cache compare, and wait if all is known.
		r = proto.CloneOf(r)
		r.VersionInfo = q.prefix
	}
	return q.LinearCache.CreateWatch(r, sub, to)
}

// What one request may ask for. An Envoy asks for a cluster at a time; a gRPC
// client for a handful. The caches remember each name for as long as its stream
// lasts.
const (
	mostNames   = 10_000
	longestName = 1_024
	// mostUnknownTypes is how many types that are not served a stream may ask
	// for; Envoys ask for some, such as secrets.
	mostUnknownTypes = 16
)

// bounded refuses a request that asks for more than anybody needs.
func bounded(url string, lists ...[]string) error {
	n := 0
	for _, names := range lists {
		n += len(names)
		for _, name := range names {
			if len(name) > longestName {
				return status.Errorf(codes.InvalidArgument, "a resource name of %d bytes is longer than %d", len(name), longestName)
			}
		}
	}
	switch {
	case n > mostNames:
		return status.Errorf(codes.InvalidArgument, "%d resource names in one request are more than %d", n, mostNames)
	case len(url) > longestName:
		return status.Errorf(codes.InvalidArgument, "a type URL of %d bytes is longer than %d", len(url), longestName)
	}
	return nil
}
