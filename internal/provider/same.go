package provider

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/tailxds/tailxds/internal/topology"
)

// Same tells whether two lists say the same, in the same order.
func Same(a, b []topology.Device) bool { return slices.EqualFunc(a, b, sameDevice) }

func sameDevice(a, b topology.Device) bool {
	return a.ID == b.ID && a.Name == b.Name && a.Online == b.Online && a.Unreachable == b.Unreachable &&
		slices.Equal(a.Addresses, b.Addresses) && slices.Equal(a.Tags, b.Tags) &&
		sameTime(a.OfflineSince, b.OfflineSince) && sameTime(a.Expires, b.Expires) &&
		slices.EqualFunc(a.Grants, b.Grants, func(x, y json.RawMessage) bool { return bytes.Equal(x, y) }) &&
		maps.Equal(a.Attributes, b.Attributes)
}

func sameTime(a, b *time.Time) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Equal(*b)
}
