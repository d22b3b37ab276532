package xds

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const (
	// maxMessageBytes bounds a report: that of an Envoy about some 5,000 endpoints.
	maxMessageBytes = 4 << 20
	// maxRequestBytes bounds a request for configuration: 10,000 names with their
	// versions and an Envoy's node are some 600 kB.
	maxRequestBytes = 1 << 20
	// A decoded message has an object for each element: a message within it, or one
	// of several texts. Two bytes can be one, and take a hundred in memory.
	// maxReportElements are those of the largest report, at 20 bytes each.
	maxReportElements  = 200_000
	maxRequestElements = 50_000
	// maxDepth is how deep messages may lie in one another: a node's metadata are
	// the deepest that Envoys send.
	maxDepth = 64
)

// received is a message to be decoded within its peer's bounds. What is wrong with
// it is left in err: gRPC itself would end the stream as Internal, as if the fault
// were ours.
type received struct {
	ctx                context.Context //nolint:containedctx // gRPC hands none to a codec
	quota              *quota
	message            any
	maxBytes, elements int
	err                error
}

// decode reads the message from bytes, once the peer may have it read.
func (r *received) decode(data mem.BufferSlice) error {
	m, ok := r.message.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is no message", r.message)
	}
	n := data.Len()
	if r.quota != nil {
		r.quota.read(n)
		if err := r.quota.bytes.WaitN(r.ctx, n+messageCost); err != nil {
			if cause := context.Cause(r.ctx); cause != nil {
				return cause
			}
			return status.Errorf(codes.ResourceExhausted, "more than %d bytes a second of one peer", r.quota.limits.Bytes)
		}
		r.quota.decode.Lock()
		defer r.quota.decode.Unlock()
	}
	if n > r.maxBytes {
		return status.Errorf(codes.ResourceExhausted, "a message of %d bytes is larger than %d", n, r.maxBytes)
	}
	buffer := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buffer.Free()
	left := r.elements
	if err := countElements(m.ProtoReflect().Descriptor(), buffer.ReadOnlyData(), maxDepth, &left); err != nil {
		return err
	}
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(buffer.ReadOnlyData(), m); err != nil {
		return status.Errorf(codes.InvalidArgument, "a request can't be read: %v", err)
	}
	return nil
}

var errMalformed = status.Error(codes.InvalidArgument, "a request can't be read: it is no protobuf message")

// countElements takes the elements that a message has from those left, before any
// of them is made.
func countElements(of protoreflect.MessageDescriptor, raw []byte, depth int, left *int) error {
	if depth == 0 {
		return status.Errorf(codes.InvalidArgument, "a request has messages more than %d deep in one another", maxDepth)
	}
	for len(raw) > 0 {
		number, kind, n := protowire.ConsumeTag(raw)
		if n < 0 {
			return errMalformed
		}
		raw = raw[n:]
		size := protowire.ConsumeFieldValue(number, kind, raw)
		if size < 0 {
			return errMalformed
		}
		value := raw[:size]
		raw = raw[size:]
		field := of.Fields().ByNumber(number)
		if field == nil || (!field.IsList() && !field.IsMap() && field.Message() == nil) {
			continue
		}
		if *left--; *left < 0 {
			return status.Error(codes.ResourceExhausted, "a message has more elements than are read")
		}
		if kind == protowire.BytesType && field.Message() != nil {
			inside, _ := protowire.ConsumeBytes(value)
			if err := countElements(field.Message(), inside, depth-1, left); err != nil {
				return err
			}
		}
	}
	return nil
}

// tap looks at each call before anything is made for it. A peer with too many
// streams is refused; one that begins calls too fast is cut off, since refusing
// each would cost more than it is worth.
func (s *Server) tap(ctx context.Context, _ *tap.Info) (context.Context, error) {
	c := connectionOf(ctx)
	if c == nil || c.quota == nil {
		return ctx, nil
	}
	if !c.quota.calls.Allow() {
		c.close()
		return ctx, s.overLimit(ctx, fmt.Sprintf("more than %d calls a second of one peer", c.quota.limits.Calls))
	}
	if err := c.quota.open(); err != nil {
		return ctx, s.overLimit(ctx, err.Error())
	}
	context.AfterFunc(ctx, c.quota.close)
	return ctx, nil
}

// overLimit counts and logs a refusal of a peer that asks for more than its limits,
// and returns what the peer receives.
func (s *Server) overLimit(ctx context.Context, reason string) error {
	s.streams.count("", "refused")
	if from, err := peerAddress(ctx); err == nil {
		s.refused.logRefusal(time.Now(), from, "", reason)
	}
	return status.Error(codes.ResourceExhausted, reason)
}

// RecvMsg decodes the next message within its peer's bounds.
func (a admitted) RecvMsg(m any) error {
	in := received{ctx: a.ctx, quota: a.quota, message: m, maxBytes: maxMessageBytes, elements: maxReportElements}
	if a.ads {
		in.maxBytes, in.elements = maxRequestBytes, maxRequestElements
	}
	if err := a.ServerStream.RecvMsg(&in); err != nil {
		return err
	}
	return in.err
}

// asStreams registers calls that are no streams as if they were: gRPC reads and
// decodes the message of a call before it asks an interceptor, but that of a
// stream only when the handler asks for it. So a peer that may not connect has
// nothing read.
type asStreams struct{ grpc.ServiceRegistrar }

// RegisterService implements [grpc.ServiceRegistrar].
func (a asStreams) RegisterService(of *grpc.ServiceDesc, implementation any) {
	converted := *of
	converted.Methods = nil
	for _, method := range of.Methods {
		converted.Streams = append(converted.Streams, grpc.StreamDesc{
			StreamName: method.MethodName, ClientStreams: true,
			Handler: func(implementation any, stream grpc.ServerStream) error {
				return answerCall(method, implementation, stream)
			},
		})
	}
	a.ServiceRegistrar.RegisterService(&converted, implementation)
}

// answerCall reads one message and answers it. A peer has few calls answered at a
// time; the others wait for their turn.
func answerCall(method grpc.MethodDesc, implementation any, stream grpc.ServerStream) error {
	ctx := stream.Context()
	who, _ := ctx.Value(identityKey{}).(peerInfo)
	if q := who.connection.peerQuota(); q != nil {
		select {
		case q.reports <- struct{}{}:
			defer func() { <-q.reports }()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	// A read waits for its peer alone, and what ends that is the end of the connection.
	late := time.AfterFunc(reportTime, who.connection.close)
	defer late.Stop()
	reply, err := method.Handler(implementation, ctx, stream.RecvMsg, nil)
	if err != nil {
		return err
	}
	return stream.SendMsg(reply)
}
