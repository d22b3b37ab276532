package xds

import (
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// codec decodes messages of peers within their bounds: see [received]. It encodes as
// gRPC does.
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
