package hostile_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tailxds/tailxds/internal/api"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tailxds/tailxds/integration/hostile"
)

// Addresses of peers.
const attacker, friend = "127.1.0.1", "127.1.0.2"

// empties is a message of n bytes, that decodes to an object for each two of them.
func empties(n int) *[]byte {
	b := bytes.Repeat([]byte{1<<3 | 2, 0}, n/2) // field 1, of no bytes
	return &b
}

// serves fails the test unless another peer is served within a second or so.
func serves(t *testing.T, c *hostile.ControlPlane) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	stream, err := hostile.Open(ctx, c.Dial(t, friend), hostile.DeltaADS)
	if err == nil {
		err = stream.SendMsg(hostile.DeltaRequest(hostile.Node("friend", "west"), hostile.ClusterType))
	}
	var response []byte
	if err == nil {
		err = stream.RecvMsg(&response)
	}
	if err != nil || !bytes.Contains(response, []byte("server")) {
		t.Errorf("another peer is not served: %v, %q", err, response)
	}
}

// inTime is a context for streams that wait for an answer: one that never comes is
// a failure.
func inTime(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// export calls the method for reports as often as it can, over several connections.
func export(t *testing.T, c *hostile.ControlPlane, message *[]byte, connections, calls int) (codesSeen map[codes.Code]int) {
	t.Helper()
	var mu sync.Mutex
	codesSeen = make(map[codes.Code]int)
	var all sync.WaitGroup
	for range connections {
		conn := c.Dial(t, attacker)
		all.Go(func() {
			for range calls {
				var answer []byte
				ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
				err := conn.Invoke(ctx, hostile.Export, message, &answer)
				cancel()
				mu.Lock()
				codesSeen[status.Code(err)]++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return codesSeen
}

// A peer that may not connect has no message read, however large.
func TestExport_refusedPeer_readsNothing(t *testing.T) {
	// Without a list of devices, every peer is refused.
	c := start(t, hostile.Options{Unready: true})
	cost := c.Measure(func() {
		seen := export(t, c, empties(4<<20-100), 10, 4)
		if seen[codes.Unavailable] == 0 || seen[codes.OK] > 0 {
			t.Errorf("the answers are %v, want all refused", seen)
		}
	})
	cost.Check(t, hostile.Bound{Memory: 32 << 20, CPU: 2 * time.Second, Logged: 8 << 10})
}

// A peer that may connect has large messages read one after the other.
func TestExport_messagesOfManyElements_bounded(t *testing.T) {
	c := start(t, hostile.Options{})
	cost := c.Measure(func() {
		seen := export(t, c, empties(4<<20-100), 3, 2)
		if seen[codes.ResourceExhausted] == 0 || seen[codes.OK] > 0 {
			t.Errorf("the answers are %v, want all refused", seen)
		}
		serves(t, c)
	})
	cost.Check(t, hostile.Bound{Memory: 96 << 20, CPU: 3 * time.Second, Logged: 16 << 10})
}

// What is begun and never ends is held for a peer up to a bound.
func TestStreams_messagesWithoutEnd_bounded(t *testing.T) {
	c := start(t, hostile.Options{})
	cost := c.Measure(func() {
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				sent, err := hostile.Unfinished(c.XDS, attacker, hostile.DeltaADS, 15, 4<<20-100)
				if err == nil {
					t.Errorf("%d bytes of messages that are not complete are held", sent)
				}
			})
		}
		all.Wait()
		serves(t, c)
	})
	cost.Check(t, hostile.Bound{Memory: 128 << 20, CPU: 4 * time.Second})
}

// Names are counted for a peer over all its streams.
func TestStreams_manyNames_bounded(t *testing.T) {
	c := start(t, hostile.Options{})
	var mu sync.Mutex
	ended := make(map[codes.Code]int)
	cost := c.Measure(func() {
		conn := c.Dial(t, attacker)
		var all sync.WaitGroup
		for i := range 12 {
			stream, err := hostile.Open(inTime(t), conn, hostile.DeltaADS)
			if err != nil {
				t.Fatal(err)
			}
			names := make([]string, 9_000)
			for j := range names {
				names[j] = fmt.Sprintf("%d-%d-%s", i, j, strings.Repeat("x", 60))
			}
			all.Go(func() {
				for _, kind := range []string{hostile.EndpointType, hostile.ClusterType} {
					_ = stream.SendMsg(hostile.DeltaRequest(hostile.Node("n", "west"), kind, names...)) // it may have ended
				}
				var response []byte
				var err error
				for range 2 {
					if err = stream.RecvMsg(&response); err != nil {
						break
					}
				}
				mu.Lock()
				ended[status.Code(err)]++
				mu.Unlock()
			})
		}
		all.Wait()
		serves(t, c)
	})
	if ended[codes.ResourceExhausted] == 0 {
		t.Errorf("the streams ended as %v", ended)
	}
	cost.Check(t, hostile.Bound{Memory: 128 << 20, CPU: 5 * time.Second, Logged: 32 << 10})
}

// Envoys describe themselves at length. Nothing of that is kept but what is used.
func TestStreams_hugeNodeMetadata_notKept(t *testing.T) {
	c := start(t, hostile.Options{})
	// metadata is field 3 of a node; a value within it is one entry of a map.
	var metadata []byte
	for i := range 15_000 {
		entry := hostile.Field(hostile.Field(nil, 1, []byte(fmt.Sprint(i))), 2, []byte{0x1a, 1, 'x'})
		metadata = hostile.Field(metadata, 1, entry)
	}
	node := hostile.Field(hostile.Node("n", "west"), 3, metadata)
	cost := c.Measure(func() {
		conn := c.Dial(t, attacker)
		var all sync.WaitGroup
		for range 90 {
			stream, err := hostile.Open(inTime(t), conn, hostile.DeltaADS)
			if err != nil {
				t.Fatal(err)
			}
			all.Go(func() {
				if err := stream.SendMsg(hostile.DeltaRequest(node, hostile.ClusterType)); err != nil {
					t.Error(err)
				}
				var response []byte
				if err := stream.RecvMsg(&response); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	})
	cost.Check(t, hostile.Bound{Memory: 96 << 20, CPU: 8 * time.Second})
}

// A peer has so many connections, and one without a stream ends.
func TestConnections_manyWithoutStreams_closed(t *testing.T) {
	c := start(t, hostile.Options{})
	const tried, most = 2_000, 100
	cost := c.Measure(func() {
		dialer := hostile.From(attacker)
		var open []net.Conn
		defer func() {
			for _, conn := range open {
				_ = conn.Close()
			}
		}()
		for range tried {
			conn, err := dialer.Dial("tcp", c.XDS)
			if err != nil {
				continue // refused already
			}
			open = append(open, conn)
			_, _ = io.WriteString(conn, http2.ClientPreface) // it may be closed
			_ = http2.NewFramer(conn, conn).WriteSettings()
		}
		c.Await("the others are closed", func() error {
			if n := c.Connections(); n > most {
				return fmt.Errorf("%d connections are open", n)
			}
			return nil
		})
		serves(t, c)
	})
	cost.Check(t, hostile.Bound{Memory: 48 << 20, CPU: 3 * time.Second, Logged: 16 << 10})
}

// A connection that never becomes one of HTTP/2 ends after some seconds.
func TestConnections_withoutHandshake_end(t *testing.T) {
	t.Parallel()
	c := start(t, hostile.Options{})
	conn, err := hostile.From(attacker).Dial("tcp", c.XDS)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("it is open after 20 s")
	}
}

// A peer that opens and closes streams without end is cut off, and fills no log.
func TestStreams_openedWithoutEnd_cutOff(t *testing.T) {
	c := start(t, hostile.Options{})
	refused := 0
	cost := c.Measure(func() {
		conn := c.Dial(t, attacker)
		for range 3_000 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			stream, err := hostile.Open(ctx, conn, hostile.DeltaADS)
			if err == nil {
				err = stream.SendMsg(hostile.DeltaRequest(hostile.Node("n", "west"), "type.googleapis.com/made.up"))
			}
			if err == nil {
				err = stream.CloseSend()
			}
			var response []byte
			if err == nil {
				err = stream.RecvMsg(&response)
			}
			if err != nil && !errors.Is(err, io.EOF) {
				refused++
			}
			cancel()
		}
		serves(t, c)
	})
	if refused < 1_000 {
		t.Errorf("only %d of 3000 streams were refused", refused)
	}
	cost.Check(t, hostile.Bound{Memory: 48 << 20, CPU: 4 * time.Second, Logged: 32 << 10})
}

// A peer that sends requests as fast as it can waits.
func TestStreams_requestsWithoutEnd_slowedDown(t *testing.T) {
	c := start(t, hostile.Options{})
	cost := c.Measure(func() {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		conn := c.Dial(t, attacker)
		var all sync.WaitGroup
		for range 20 {
			stream, err := hostile.Open(ctx, conn, hostile.DeltaADS)
			if err != nil {
				t.Fatal(err)
			}
			go drain(stream)
			all.Go(func() {
				request := hostile.DeltaRequest(hostile.Node("n", "west"), hostile.EndpointType, "server", "made-up")
				for stream.SendMsg(request) == nil {
				}
			})
		}
		serves(t, c)
		all.Wait()
	})
	cost.Check(t, hostile.Bound{Memory: 64 << 20, CPU: 4 * time.Second, Logged: 16 << 10})
}

func drain(stream grpc.ClientStream) {
	var response []byte
	for stream.RecvMsg(&response) == nil {
	}
}

// A peer may claim to be in a few regions; the others' regions have their room.
func TestRegions_manyClaims_fewCount(t *testing.T) {
	c := start(t, hostile.Options{Policy: "defaults: {locality: local}\n"})
	var status api.Status
	cost := c.Measure(func() {
		conn := c.Dial(t, attacker)
		for i := range 90 {
			stream, err := hostile.Open(inTime(t), conn, hostile.DeltaADS)
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.SendMsg(hostile.DeltaRequest(hostile.Node("n", fmt.Sprintf("region-%d", i)), hostile.EndpointType, "server")); err != nil {
				t.Fatal(err)
			}
			var response []byte
			if err := stream.RecvMsg(&response); err != nil {
				t.Fatal(err)
			}
		}
		var err error
		if status, err = c.Status(); err != nil {
			t.Fatal(err)
		}
	})
	regions, ignored := make(map[string]bool), 0
	for _, e := range status.Envoys {
		if e.Region != "" {
			regions[e.Region] = true
		} else if e.Claims != "" {
			ignored++
		}
	}
	if len(regions) != 8 || ignored != 82 {
		t.Errorf("one peer is in %d regions, and %d claims are ignored; want 8 and 82", len(regions), ignored)
	}
	told := 0
	for _, p := range status.Problems {
		if p.Subject == "region" && strings.Contains(p.Reason, "claims too many regions") {
			told++
		}
	}
	if told != 1 {
		t.Errorf("the operator is told %d times, want once: %+v", told, status.Problems)
	}
	cost.Check(t, hostile.Bound{Memory: 48 << 20, CPU: 3 * time.Second})
}
