package drain

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tailxds/tailxds/internal/topology"
)

// Device is a device that an operator can name.
type Device struct {
	ID, Name  string
	Addresses []netip.Addr
}

// String is how people tell it from others.
func (d Device) String() string {
	var address []string
	if len(d.Addresses) > 0 {
		address = append(address, d.Addresses[0].String())
	}
	return fmt.Sprintf("%s (%s)", cmp.Or(d.Name, "a device without a name"), strings.Join(append(address, "ID "+d.ID), ", "))
}

// UnknownError answers a name that is nobody's.
type UnknownError struct {
	Query string
	// Like are devices that may have been meant.
	Like []Device
}

func (e UnknownError) Error() string {
	text := "no device is named: give the name, ID or address of one"
	if strings.Trim(e.Query, ". ") != "" {
		text = fmt.Sprintf("no device has the name, ID or address %q", e.Query)
	}
	if len(e.Like) > 0 {
		text += "; there are " + list(e.Like)
	}
	return text
}

// AmbiguousError answers what several devices are called by.
type AmbiguousError struct {
	Query   string
	Devices []Device
}

func (e AmbiguousError) Error() string {
	return fmt.Sprintf("%q is more than one device: %s; name one by its address", e.Query, list(e.Devices))
}

// mostListed is how many devices an error lists.
const mostListed = 12

func list(devices []Device) string {
	var all []string
	for i, d := range devices {
		if i == mostListed {
			all = append(all, fmt.Sprintf("and %d more", len(devices)-i))
			break
		}
		all = append(all, d.String())
	}
	return strings.Join(all, ", ")
}

// Find is the one device that query names: by its ID, its name, with or without
// the tailnet's domain, or an address. The error is an [UnknownError] or an
// [AmbiguousError].
func Find(query string, devices []Device) (Device, error) {
	if strings.Trim(query, ". ") == "" { // or it would be the device that has no name
		return Device{}, UnknownError{query, like(query, devices)}
	}
	// A whole name goes before the first part of one.
	for _, matches := range []func(Device) bool{
		func(d Device) bool { return d.is(query) },
		func(d Device) bool {
			return d.Name != "" && !isAddress(query) && strings.EqualFold(label(d.Name), label(query))
		},
	} {
		found := slices.Collect(func(yield func(Device) bool) {
			for _, d := range devices {
				if matches(d) && !yield(d) {
					return
				}
			}
		})
		switch len(found) {
		case 0:
		case 1:
			return found[0], nil
		default:
			return Device{}, AmbiguousError{query, found}
		}
	}
	return Device{}, UnknownError{query, like(query, devices)}
}

func (d Device) is(query string) bool {
	if a, err := netip.ParseAddr(query); err == nil {
		return slices.Contains(d.Addresses, a.Unmap()) || d.ID == query
	}
	return d.ID == query || strings.EqualFold(strings.TrimSuffix(d.Name, "."), strings.TrimSuffix(query, "."))
}

func isAddress(query string) bool {
	_, err := netip.ParseAddr(query)
	return err == nil
}

// label is the first part of a name.
func label(name string) string {
	first, _, _ := strings.Cut(name, ".")
	return first
}

// like are the devices whose name is nearest to the query, or all of them where
// none is near.
func like(query string, devices []Device) []Device {
	var near []Device
	for _, d := range devices {
		if !isAddress(query) && topology.EditDistance(strings.ToLower(label(query)), strings.ToLower(label(d.Name))) <= 2 {
			near = append(near, d)
		}
	}
	if len(near) == 0 {
		near = slices.Clone(devices)
	}
	slices.SortStableFunc(near, func(a, b Device) int { return cmp.Or(cmp.Compare(a.Name, b.Name), topology.CompareIDs(a.ID, b.ID)) })
	return near
}
