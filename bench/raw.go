package main

import (
	"fmt"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// raw is a gRPC codec of bytes as they are on the wire: [frame] and []byte. So
// neither the clients nor the bare server spend time on what is in a message.
type raw struct{}

// Name implements encoding.CodecV2; servers look at it.
func (raw) Name() string { return "proto" }

// Marshal implements encoding.CodecV2. Nothing is copied.
func (raw) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("%T is no []byte", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

// Unmarshal implements encoding.CodecV2.
func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*frame)
	if !ok {
		return fmt.Errorf("%T is no *frame", v)
	}
	whole := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer whole.Free()
	return f.read(whole.ReadOnlyData())
}

// The fields of discovery.v3's delta messages.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/service/discovery/v3/discovery.proto
const (
	requestNode, requestType, requestSubscribe, requestNonce = 1, 2, 3, 6
	responseType, responseNonce                              = 4, 5
)

// frame is what a client must know of a response, or the bare server of a
// request.
type frame struct {
	typ, nonce string
	size       int
	request    bool // whether it is one
	keep       bool // the whole message too
	whole      []byte
}

func (f *frame) read(b []byte) error {
	f.size, f.typ, f.nonce = len(b), "", ""
	if f.keep {
		f.whole = append(f.whole[:0], b...)
	}
	typ, nonce := protowire.Number(responseType), protowire.Number(responseNonce)
	if f.request {
		typ, nonce = requestType, requestNonce
	}
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if kind == protowire.BytesType && (number == typ || number == nonce) {
			text, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return protowire.ParseError(n)
			}
			if number == typ {
				f.typ = string(text)
			} else {
				f.nonce = string(text)
			}
			b = b[n:]
			continue
		}
		if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
	}
	return nil
}

func text(b []byte, field protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

// ask is a first request of a type; without names it asks for all there is.
func ask(node, typ string, names []string) []byte {
	b := text(nil, requestNode, string(text(nil, 1, node)))
	b = text(b, requestType, typ)
	for _, name := range names {
		b = text(b, requestSubscribe, name)
	}
	return b
}

func ack(f frame) []byte {
	return text(text(nil, requestType, f.typ), requestNonce, f.nonce)
}
