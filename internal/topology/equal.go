package topology

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"time"
)

// Equal reports whether two devices are equal in every field.
func (d Device) Equal(o Device) bool {
	return d.ID == o.ID && d.Name == o.Name && d.Online == o.Online && d.Unreachable == o.Unreachable &&
		slices.Equal(d.Addresses, o.Addresses) && slices.Equal(d.Tags, o.Tags) &&
		equalTime(d.OfflineSince, o.OfflineSince) && equalTime(d.Expires, o.Expires) &&
		slices.EqualFunc(d.Grants, o.Grants, func(a, b json.RawMessage) bool { return bytes.Equal(a, b) }) &&
		maps.Equal(d.Attributes, o.Attributes)
}

func equalTime(a, b *time.Time) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Equal(*b)
}
