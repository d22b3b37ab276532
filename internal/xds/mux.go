package xds

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
)

// byType hands each request to the cache of its type. Requests of other types do
// not get here: see [doorway].
type byType map[string]watchable

// watchable is what of a [cache.Cache] is used.
type watchable interface{ cache.ConfigWatcher }

// CreateWatch implements [cache.Cache].
func (b byType) CreateWatch(r *cache.Request, sub cache.Subscription, to chan cache.Response) (func(), error) {
	c, err := b.cache(r.GetTypeUrl(), sub)
	if err != nil {
		return nil, err
	}
	return c.CreateWatch(r, sub, to)
}

// CreateDeltaWatch implements [cache.Cache].
func (b byType) CreateDeltaWatch(r *cache.DeltaRequest, sub cache.Subscription, to chan cache.DeltaResponse) (func(), error) {
	c, err := b.cache(r.GetTypeUrl(), sub)
	if err != nil {
		return nil, err
	}
	return c.CreateDeltaWatch(r, sub, to)
}

// cache is the one of a type, for a stream that does not ask for too much of it
// over all its requests.
func (b byType) cache(url string, sub cache.Subscription) (watchable, error) {
	if n := len(sub.SubscribedResources()); n > mostNames {
		return nil, status.Errorf(codes.InvalidArgument, "%d resource names of one type in one stream are more than %d", n, mostNames)
	}
	c, ok := b[url]
	if !ok {
		return nil, status.Errorf(codes.Unimplemented, "type %s is not served", url)
	}
	return c, nil
}

// Fetch implements [cache.Cache], for REST, which is not served.
func (byType) Fetch(context.Context, *cache.Request) (cache.Response, error) {
	return nil, fmt.Errorf("resources are served by streams only")
}

// asked tells those who ask for all resources of a type, as Envoys do, from those
// who ask for some by name, as gRPC clients do, and so may get what is of no use
// to the others.
type asked struct{ all, named watchable }

// CreateWatch implements [cache.Cache].
func (a asked) CreateWatch(r *cache.Request, sub cache.Subscription, to chan cache.Response) (func(), error) {
	return a.by(sub).CreateWatch(r, sub, to)
}

// CreateDeltaWatch implements [cache.Cache].
func (a asked) CreateDeltaWatch(r *cache.DeltaRequest, sub cache.Subscription, to chan cache.DeltaResponse) (func(), error) {
	return a.by(sub).CreateDeltaWatch(r, sub, to)
}

func (a asked) by(sub cache.Subscription) watchable {
	if sub.IsWildcard() {
		return a.all
	}
	return a.named
}
