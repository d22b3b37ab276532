package cache

import (
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
)

// Stream answers the requests of one stream, and remembers what the stream was sent. It
// implements [cache.ConfigWatcher] for a server of go-control-plane that serves this
// stream alone.
type Stream struct {
	cache     *Cache
	positions map[string]*position // by type URL
}

// position is up to which version of a cache a stream of the delta protocol was sent
// all that it follows. It is written under the lock of that cache; a stream's watch ends
// before the next begins, so no two caches write it at a time.
type position struct {
	in      *typeCache // nil before the first answer
	version uint64
}

// NewStream returns what answers the requests of a new stream.
func (c *Cache) NewStream() *Stream {
	return &Stream{cache: c, positions: make(map[string]*position)}
}

// CreateWatch implements [cache.ConfigWatcher].
func (s *Stream) CreateWatch(r *cache.Request, sub cache.Subscription, to chan cache.Response) (cancel func(), err error) {
	err = s.watch(r.GetTypeUrl(), sub, r.GetNode().GetLocality().GetRegion(), func(c *typeCache) (err error) {
		cancel, err = c.watchSotw(r, sub, to)
		return err
	})
	return cancel, err
}

// CreateDeltaWatch implements [cache.ConfigWatcher].
func (s *Stream) CreateDeltaWatch(r *cache.DeltaRequest, sub cache.Subscription, to chan cache.DeltaResponse) (cancel func(), err error) {
	at, ok := s.positions[r.GetTypeUrl()]
	if !ok {
		at = &position{}
		s.positions[r.GetTypeUrl()] = at
	}
	err = s.watch(r.GetTypeUrl(), sub, r.GetNode().GetLocality().GetRegion(), func(c *typeCache) (err error) {
		cancel, err = c.watchDelta(r, sub, at, to)
		return err
	})
	return cancel, err
}

// watch has a request watch the cache of its type. Clients that ask for all resources
// of a type, as Envoys do, may get others than those that ask for some by name, as gRPC
// clients do.
func (s *Stream) watch(url string, sub cache.Subscription, region string, in func(*typeCache) error) error {
	t, ok := s.cache.byURL[url]
	switch {
	case !ok:
		return status.Errorf(codes.Unimplemented, "type %s is not served", url)
	case t.named != nil && !sub.IsWildcard():
		return in(t.named)
	case t.regions == nil:
		return in(t.all)
	}
	for {
		c, err := s.cache.inRegion(t, region)
		if err != nil {
			return err
		}
		if err := in(c); !errors.Is(err, errRetired) { // else it was dropped in the same moment
			return err
		}
	}
}
