package xds

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// codec is how messages become bytes, and bytes messages.
//
// Bytes of a request may turn out to be none: see [received]. Of a response, the
// large resources are not copied: a cache keeps each of them encoded, once for
// all streams, and here they go to the wire as they are. A client that does not
// read keeps the rest of its response waiting, and no copy of them.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(protocodec.Name)} }

// received is a message that may turn out to be none. gRPC itself ends a stream
// with such a message as Internal, as if the fault were ours.
type received struct {
	message any
	err     error
}

// Unmarshal implements [encoding.CodecV2].
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if in, ok := v.(*received); ok {
		in.err = c.CodecV2.Unmarshal(data, in.message)
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}

// Marshal implements [encoding.CodecV2].
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	var out shared
	var err error
	switch r := v.(type) {
	case *discovery.DeltaDiscoveryResponse:
		err = out.delta(r)
	case *discovery.DiscoveryResponse:
		err = out.all(r)
	default:
		return c.CodecV2.Marshal(v)
	}
	if err != nil {
		return nil, fmt.Errorf("encode a response: %w", err)
	}
	return out.buffers, nil
}

// fewBytes is the size below which a copy costs less than a buffer of its own.
const fewBytes = 1 << 10

// shared is an encoded message, in parts: fields of a protobuf message may come
// in any order, so those that are shared come last.
// https://protobuf.dev/programming-guides/encoding/#order
type shared struct{ buffers mem.BufferSlice }

// The numbers of the fields that hold what is shared.
const (
	resourcesNumber              = 2 // of both kinds of responses
	resourceNumber               = 2 // of a discovery.Resource
	anyTypeNumber, anyDataNumber = 1, 2
)

// delta encodes a response of the delta protocol.
func (s *shared) delta(r *discovery.DeltaDiscoveryResponse) error {
	head, err := encoded(make([]byte, 0, fewBytes), r, &discovery.DeltaDiscoveryResponse{
		SystemVersionInfo: r.GetSystemVersionInfo(), TypeUrl: r.GetTypeUrl(), Nonce: r.GetNonce(), ControlPlane: r.GetControlPlane(),
		RemovedResources: r.GetRemovedResources(), RemovedResourceNames: r.GetRemovedResourceNames(), ResourceErrors: r.GetResourceErrors(),
	})
	if err != nil {
		return err
	}
	for _, one := range r.GetResources() {
		about, err := encoded(nil, one, &discovery.Resource{
			Name: one.GetName(), ResourceName: one.GetResourceName(), Aliases: one.GetAliases(), Version: one.GetVersion(),
			Ttl: one.GetTtl(), CacheControl: one.GetCacheControl(), Metadata: one.GetMetadata(),
		})
		if err != nil {
			return err
		}
		data := one.GetResource()
		if data == nil {
			head = append(tagged(head, resourcesNumber, len(about)), about...)
			continue
		}
		inside := protowire.SizeTag(resourceNumber) + protowire.SizeBytes(sizeOf(data))
		head = append(tagged(head, resourcesNumber, len(about)+inside), about...)
		head = s.share(opened(tagged(head, resourceNumber, sizeOf(data)), data), data.GetValue())
	}
	s.flush(head)
	return nil
}

// all encodes a response of the state-of-the-world protocol.
func (s *shared) all(r *discovery.DiscoveryResponse) error {
	head, err := encoded(make([]byte, 0, fewBytes), r, &discovery.DiscoveryResponse{
		VersionInfo: r.GetVersionInfo(), Canary: r.GetCanary(), TypeUrl: r.GetTypeUrl(), Nonce: r.GetNonce(),
		ControlPlane: r.GetControlPlane(), ResourceErrors: r.GetResourceErrors(),
	})
	if err != nil {
		return err
	}
	for _, data := range r.GetResources() {
		head = s.share(opened(tagged(head, resourcesNumber, sizeOf(data)), data), data.GetValue())
	}
	s.flush(head)
	return nil
}

// share adds the data of a resource, and returns what is to be filled next.
func (s *shared) share(head, data []byte) []byte {
	if len(data) < fewBytes {
		return append(head, data...)
	}
	s.flush(head)
	s.flush(data)
	return nil
}

func (s *shared) flush(part []byte) {
	if len(part) > 0 {
		s.buffers = append(s.buffers, mem.SliceBuffer(part))
	}
}

// opened begins an Any: all of it but the data itself.
func opened(b []byte, data *anypb.Any) []byte {
	return tagged(protowire.AppendString(tag(b, anyTypeNumber), data.GetTypeUrl()), anyDataNumber, len(data.GetValue()))
}

// sizeOf is how many bytes an Any has, as it is encoded here.
func sizeOf(data *anypb.Any) int {
	return protowire.SizeTag(anyTypeNumber) + protowire.SizeBytes(len(data.GetTypeUrl())) +
		protowire.SizeTag(anyDataNumber) + protowire.SizeBytes(len(data.GetValue()))
}

func tag(b []byte, number protowire.Number) []byte {
	return protowire.AppendTag(b, number, protowire.BytesType)
}

// tagged begins a field of so many bytes.
func tagged(b []byte, number protowire.Number, size int) []byte {
	return protowire.AppendVarint(tag(b, number), uint64(size))
}

// encoded appends all of a message but what is shared: the rest of it, and what
// only a later version of the protocol knows.
func encoded(b []byte, whole, rest proto.Message) ([]byte, error) {
	if unknown := whole.ProtoReflect().GetUnknown(); len(unknown) > 0 {
		rest.ProtoReflect().SetUnknown(unknown)
	}
	return proto.MarshalOptions{}.MarshalAppend(b, rest)
}
