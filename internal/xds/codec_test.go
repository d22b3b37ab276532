package xds

import (
	"bytes"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// anything is a resource of any size, or none.
func anything(t *rapid.T) *anypb.Any {
	if rapid.Bool().Draw(t, "none") {
		return nil
	}
	size := rapid.SampledFrom([]int{0, 1, 100, fewBytes - 1, fewBytes, fewBytes + 1, 100_000}).Draw(t, "size")
	return &anypb.Any{TypeUrl: rapid.SampledFrom([]string{"", "type.googleapis.com/t"}).Draw(t, "type"), Value: bytes.Repeat([]byte{7}, size)}
}

// checkCodec encodes a message, and wants it back from any protobuf reader.
func checkCodec(t *rapid.T, m, into proto.Message) {
	out, err := newCodec().Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	whole := out.Materialize()
	if out.Len() != len(whole) {
		t.Fatalf("%d bytes are announced, %d there", out.Len(), len(whole))
	}
	if err := proto.Unmarshal(whole, into); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(m, into) {
		t.Fatalf("read back as %v", into)
	}
}

func TestResponsesAreEncodedAsProtobufDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SampledFrom([]string{"", "x", "a long text"})
		delta := &discovery.DeltaDiscoveryResponse{
			SystemVersionInfo: text.Draw(t, "system"), TypeUrl: text.Draw(t, "type"), Nonce: text.Draw(t, "nonce"),
			RemovedResources: rapid.SliceOf(text).Draw(t, "removed"), ControlPlane: &core.ControlPlane{Identifier: text.Draw(t, "us")},
		}
		for range rapid.IntRange(0, 4).Draw(t, "resources") {
			delta.Resources = append(delta.Resources, &discovery.Resource{
				Name: text.Draw(t, "name"), Version: text.Draw(t, "version"), Aliases: rapid.SliceOf(text).Draw(t, "aliases"),
				Ttl: durationpb.New(0), Resource: anything(t),
			})
		}
		// What a later version of the protocol adds is not lost.
		delta.ProtoReflect().SetUnknown([]byte{0xfa, 0x3f, 1, 'u'})
		checkCodec(t, delta, &discovery.DeltaDiscoveryResponse{})

		all := &discovery.DiscoveryResponse{VersionInfo: text.Draw(t, "version"), TypeUrl: text.Draw(t, "type"), Nonce: text.Draw(t, "nonce"), Canary: true}
		for range rapid.IntRange(0, 4).Draw(t, "resources") {
			if one := anything(t); one != nil {
				all.Resources = append(all.Resources, one)
			}
		}
		checkCodec(t, all, &discovery.DiscoveryResponse{})
	})
}

func TestLargeResourcesAreNotCopied(t *testing.T) {
	data := bytes.Repeat([]byte{7}, 100_000)
	small := bytes.Repeat([]byte{8}, fewBytes-1)
	for name, m := range map[string]proto.Message{
		"delta": &discovery.DeltaDiscoveryResponse{Resources: []*discovery.Resource{{Resource: &anypb.Any{Value: data}}, {Resource: &anypb.Any{Value: small}}}},
		"sotw":  &discovery.DiscoveryResponse{Resources: []*anypb.Any{{Value: data}, {Value: small}}},
	} {
		out, err := newCodec().Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		there := 0
		for _, part := range out {
			if b := part.(mem.SliceBuffer); len(b) == len(data) && &b[0] == &data[0] {
				there++
			} else if len(b) > 2*fewBytes {
				t.Errorf("%s: a part has %d bytes of its own", name, len(b))
			}
		}
		if there != 1 || len(out) != 3 {
			t.Errorf("%s: %d parts, %d of them the resource itself; want 3 and 1", name, len(out), there)
		}
	}
}

func TestWhatIsNoTextIsNoResponse(t *testing.T) {
	for _, m := range []proto.Message{
		&discovery.DeltaDiscoveryResponse{Nonce: "\xff"},
		&discovery.DeltaDiscoveryResponse{Resources: []*discovery.Resource{{Name: "\xff"}}},
		&discovery.DiscoveryResponse{Nonce: "\xff"},
	} {
		if _, err := newCodec().Marshal(m); err == nil {
			t.Errorf("%T was encoded", m)
		}
	}
}

// No field of a response is forgotten, also not one that a newer go-control-plane
// brings along.
func TestEveryFieldOfAResponseIsEncoded(t *testing.T) {
	for _, m := range []proto.Message{&discovery.DeltaDiscoveryResponse{}, &discovery.Resource{}, &discovery.DiscoveryResponse{}} {
		fields := m.ProtoReflect().Descriptor().Fields()
		for i := range fields.Len() {
			field, one := fields.Get(i), m.ProtoReflect().New()
			fill(one, field)
			whole := one.Interface()
			if r, ok := whole.(*discovery.Resource); ok {
				whole = &discovery.DeltaDiscoveryResponse{Resources: []*discovery.Resource{r}}
			}
			out, err := newCodec().Marshal(whole)
			if err != nil {
				t.Fatal(err)
			}
			back := whole.ProtoReflect().New().Interface()
			if err := proto.Unmarshal(out.Materialize(), back); err != nil || !proto.Equal(whole, back) {
				t.Errorf("%s is lost: %v (%v)", field.FullName(), back, err)
			}
		}
	}
}

// fill sets a field to something.
func fill(m protoreflect.Message, field protoreflect.FieldDescriptor) {
	var value protoreflect.Value
	switch field.Kind() {
	case protoreflect.BoolKind:
		value = protoreflect.ValueOfBool(true)
	case protoreflect.StringKind:
		value = protoreflect.ValueOfString("x")
	default:
		value = protoreflect.ValueOfMessage(nil)
		if !field.IsList() {
			value = m.NewField(field) // empty, and there
		}
	}
	if field.IsList() {
		list := m.NewField(field).List()
		if field.Kind() == protoreflect.MessageKind {
			value = list.NewElement()
		}
		list.Append(value)
		value = protoreflect.ValueOfList(list)
	}
	m.Set(field, value)
}
