package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// clients stand for Envoys: each has a connection of its own, follows all types
// over one stream in the delta protocol, and answers each response at once.
type clients struct {
	all    []*client
	bytes  atomic.Int64          // of all responses
	round  atomic.Pointer[round] // never nil
	failed atomic.Pointer[error]
}

// round counts the clients that have what they wait for.
type round struct {
	left atomic.Int64
	done chan struct{}
}

func newRound(n int) *round {
	r := &round{done: make(chan struct{})}
	r.left.Store(int64(n))
	return r
}

func (r *round) arrived() {
	if r.left.Add(-1) == 0 {
		close(r.done)
	}
}

type client struct {
	conn   *grpc.ClientConn
	stream grpc.ClientStream
	end    context.CancelFunc
	bytes  atomic.Int64
	pushes atomic.Int64 // of assignments

	mu   sync.Mutex
	last map[string][]byte // the last response of each type, if kept
}

// connect opens n streams that follow the assignments of the named services,
// and waits until each has something of each type. Of all of them the first client keeps
// what it is sent.
func connect(ctx context.Context, address string, n int, prefix string, services []string) (*clients, error) {
	c := &clients{}
	first := newRound(n)
	c.round.Store(first)
	// Not all at once: a backlog of connections that overflows costs a second.
	room := make(chan struct{}, 50)
	made := make([]*client, n)
	var opening sync.WaitGroup
	for i := range n {
		room <- struct{}{}
		opening.Go(func() {
			defer func() { <-room }()
			one, err := open(ctx, address)
			if err != nil {
				c.fail(err)
				return
			}
			made[i] = one
			if err := one.subscribe(fmt.Sprintf("%s%d", prefix, i), services); err != nil {
				c.fail(err)
			}
		})
	}
	opening.Wait()
	for i, one := range made {
		if one == nil {
			continue
		}
		c.all = append(c.all, one)
		go c.follow(one, i == 0)
	}
	if err := c.await(ctx, first); err != nil {
		c.close()
		return nil, fmt.Errorf("connect %d clients: %w", n, err)
	}
	return c, nil
}

// window is that of HTTP/2, and fixed: one that grows by measuring the network
// would make the first rounds unlike the last.
const window = 64 << 10

func open(ctx context.Context, address string) (*client, error) {
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{}), grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	ctx, end := context.WithCancel(ctx)
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true},
		discovery.AggregatedDiscoveryService_DeltaAggregatedResources_FullMethodName)
	if err != nil {
		end()
		return nil, errors.Join(fmt.Errorf("open a stream: %w", err), conn.Close())
	}
	return &client{conn: conn, stream: stream, end: end, last: map[string][]byte{}}, nil
}

// typesAsked is how many types a client asks for.
const typesAsked = 4

// subscribe asks for everything, as an Envoy does.
func (c *client) subscribe(node string, services []string) error {
	for _, m := range [][]byte{
		ask(node, resource.ClusterType, nil), ask(node, resource.EndpointType, services),
		ask(node, resource.ListenerType, nil), ask(node, resource.RouteType, []string{"ingress"}),
	} {
		if err := c.stream.SendMsg(m); err != nil {
			return fmt.Errorf("subscribe: %w", err)
		}
	}
	return nil
}

// follow answers what comes, until the stream ends.
func (c *clients) follow(one *client, keep bool) {
	f := frame{keep: keep}
	seen := make(map[string]bool)
	for {
		if err := one.stream.RecvMsg(&f); err != nil {
			return
		}
		c.bytes.Add(int64(f.size))
		one.bytes.Add(int64(f.size))
		if keep {
			one.mu.Lock()
			one.last[f.typ] = append([]byte(nil), f.whole...)
			one.mu.Unlock()
		}
		if err := one.stream.SendMsg(ack(f)); err != nil {
			return
		}
		if f.typ == resource.EndpointType {
			one.pushes.Add(1)
		}
		first := len(seen) < typesAsked
		seen[f.typ] = true
		// The first round is over for a client that has something of each type.
		if (first && len(seen) == typesAsked) || (!first && f.typ == resource.EndpointType) {
			c.round.Load().arrived()
		}
	}
}

// lastOf is the last response of a type that the first client got.
func (c *clients) lastOf(typ string) []byte {
	c.all[0].mu.Lock()
	defer c.all[0].mu.Unlock()
	return append([]byte(nil), c.all[0].last[typ]...)
}

func (c *clients) fail(err error) { c.failed.CompareAndSwap(nil, &err) }

const patience = time.Minute

func (c *clients) await(ctx context.Context, r *round) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("no progress for a minute"))
	defer cancel()
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		if err := c.failed.Load(); err != nil {
			return *err
		}
		return fmt.Errorf("%d clients still wait: %w", r.left.Load(), context.Cause(ctx))
	}
}

// next has what is done reach n clients, and tells how long that took: to the
// last one's answer.
func (c *clients) next(ctx context.Context, n int, do func() error) (time.Duration, error) {
	r := newRound(n)
	c.round.Store(r)
	began := time.Now()
	if err := do(); err != nil {
		return 0, err
	}
	if err := c.await(ctx, r); err != nil {
		return 0, err
	}
	return time.Since(began), nil
}

func (c *clients) close() {
	for _, one := range c.all {
		one.end()
		_ = one.conn.Close() // it is of no use any more
	}
}
