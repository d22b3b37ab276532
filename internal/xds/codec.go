package xds

import (
	"cmp"
	"fmt"
	"unicode/utf8"

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

// Unmarshal implements [encoding.CodecV2].
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if in, ok := v.(*received); ok {
		in.err = in.decode(data)
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

// headBytes are room for what a response has besides large resources.
const headBytes = 384

// shared is an encoded message, in parts: fields of a protobuf message may come
// in any order, so those that are shared come last.
// https://protobuf.dev/programming-guides/encoding/#order
type shared struct{ buffers mem.BufferSlice }

// The numbers of fields, of a response of the delta protocol, of one of the
// state-of-the-world protocol, of a discovery.Resource, and of an Any.
const (
	deltaSystem, deltaResources, deltaType, deltaNonce, deltaRemoved = 1, 2, 4, 5, 6
	worldVersion, worldResources, worldType, worldNonce              = 1, 2, 4, 5
	resourceVersion, resourceData, resourceName, resourceAliases     = 1, 2, 3, 4
	anyType, anyData                                                 = 1, 2
)

// delta encodes a response of the delta protocol. Here and below, what each
// response has is written by hand, which is much cheaper than a message made to
// be encoded; all that is rare is left to protobuf.
func (s *shared) delta(r *discovery.DeltaDiscoveryResponse) error {
	first := fields{bytes: make([]byte, 0, headBytes)}
	first.text(deltaSystem, r.GetSystemVersionInfo())
	first.text(deltaType, r.GetTypeUrl())
	first.text(deltaNonce, r.GetNonce())
	first.texts(deltaRemoved, r.GetRemovedResources())
	if r.GetControlPlane() != nil || len(r.GetRemovedResourceNames())+len(r.GetResourceErrors()) > 0 {
		first.message(&discovery.DeltaDiscoveryResponse{
			ControlPlane: r.GetControlPlane(), RemovedResourceNames: r.GetRemovedResourceNames(), ResourceErrors: r.GetResourceErrors(),
		})
	}
	head, err := first.and(r)
	if err != nil {
		return err
	}
	for _, one := range r.GetResources() {
		about, err := aboutResource(one)
		if err != nil {
			return err
		}
		data := one.GetResource()
		if data == nil {
			head = append(tagged(head, deltaResources, len(about)), about...)
			continue
		}
		inside := protowire.SizeTag(resourceData) + protowire.SizeBytes(sizeOf(data))
		head = append(tagged(head, deltaResources, len(about)+inside), about...)
		head = s.share(opened(tagged(head, resourceData, sizeOf(data)), data), data.GetValue())
	}
	s.flush(head)
	return nil
}

// aboutResource is all of a resource but its data.
func aboutResource(r *discovery.Resource) ([]byte, error) {
	about := fields{bytes: make([]byte, 0, len(r.GetVersion())+len(r.GetName())+8)}
	about.text(resourceVersion, r.GetVersion())
	about.text(resourceName, r.GetName())
	about.texts(resourceAliases, r.GetAliases())
	if r.GetResourceName() != nil || r.GetTtl() != nil || r.GetCacheControl() != nil || r.GetMetadata() != nil {
		about.message(&discovery.Resource{
			ResourceName: r.GetResourceName(), Ttl: r.GetTtl(), CacheControl: r.GetCacheControl(), Metadata: r.GetMetadata(),
		})
	}
	return about.and(r)
}

// all encodes a response of the state-of-the-world protocol.
func (s *shared) all(r *discovery.DiscoveryResponse) error {
	first := fields{bytes: make([]byte, 0, headBytes)}
	first.text(worldVersion, r.GetVersionInfo())
	first.text(worldType, r.GetTypeUrl())
	first.text(worldNonce, r.GetNonce())
	if r.GetCanary() || r.GetControlPlane() != nil || len(r.GetResourceErrors()) > 0 {
		first.message(&discovery.DiscoveryResponse{
			Canary: r.GetCanary(), ControlPlane: r.GetControlPlane(), ResourceErrors: r.GetResourceErrors(),
		})
	}
	head, err := first.and(r)
	if err != nil {
		return err
	}
	for _, data := range r.GetResources() {
		head = s.share(opened(tagged(head, worldResources, sizeOf(data)), data), data.GetValue())
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
	return tagged(protowire.AppendString(tag(b, anyType), data.GetTypeUrl()), anyData, len(data.GetValue()))
}

// sizeOf is how many bytes an Any has, as it is encoded here.
func sizeOf(data *anypb.Any) int {
	return protowire.SizeTag(anyType) + protowire.SizeBytes(len(data.GetTypeUrl())) +
		protowire.SizeTag(anyData) + protowire.SizeBytes(len(data.GetValue()))
}

func tag(b []byte, number protowire.Number) []byte {
	return protowire.AppendTag(b, number, protowire.BytesType)
}

// tagged begins a field of so many bytes.
func tagged(b []byte, number protowire.Number, size int) []byte {
	return protowire.AppendVarint(tag(b, number), uint64(size))
}

// fields are a message as it is encoded.
type fields struct {
	bytes []byte
	err   error // of the first that can't be encoded
}

// text appends a field of text, if there is any.
func (f *fields) text(number protowire.Number, value string) {
	if value != "" {
		f.texts(number, []string{value})
	}
}

// texts appends a repeated field. What is no text no client could read.
func (f *fields) texts(number protowire.Number, values []string) {
	for _, v := range values {
		if !utf8.ValidString(v) && f.err == nil {
			f.err = fmt.Errorf("field %d is no UTF-8: %q", number, v)
		}
		f.bytes = protowire.AppendString(tag(f.bytes, number), v)
	}
}

// message appends what protobuf encodes.
func (f *fields) message(m proto.Message) {
	all, err := proto.MarshalOptions{}.MarshalAppend(f.bytes, m)
	if err != nil {
		f.err = cmp.Or(f.err, err)
		return
	}
	f.bytes = all
}

// and are the fields with what of the whole message only a later version of the
// protocol knows.
func (f *fields) and(whole proto.Message) ([]byte, error) {
	return append(f.bytes, whole.ProtoReflect().GetUnknown()...), f.err
}
