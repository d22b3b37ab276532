package drain

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tailxds/tailxds/internal/topology"
)

// Device is a device as an operator can name it.
type Device struct {
	ID, Name  string
	Addresses []netip.Addr
}

// String names the device, with an address and its ID to tell it from others.
func (d Device) String() string {
	var address []string
	if len(d.Addresses) > 0 {
		address = append(address, d.Addresses[0].String())
	}
	return fmt.Sprintf("%s (%s)", cmp.Or(d.Name, "a device without a name"), strings.Join(append(address, "ID "+d.ID), ", "))
}

// UnknownError is the error of [Find] if no device has the name.
type UnknownError struct {
	Query string
	// Similar are devices that may have been meant.
	Similar []Device
}

func (e UnknownError) Error() string {
	text := "no device is named: give the name, ID or address of one"
	if strings.Trim(e.Query, ". ") != "" {
		text = fmt.Sprintf("no device has the name, ID or address %q", e.Query)
	}
	if len(e.Similar) > 0 {
		text += "; there are " + joinDevices(e.Similar)
	}
	return text
}

// AmbiguousError is the error of [Find] if several devices have the name.
type AmbiguousError struct {
	Query   string
	Devices []Device
}

func (e AmbiguousError) Error() string {
	return fmt.Sprintf("%q is more than one device: %s; name one by its address", e.Query, joinDevices(e.Devices))
}

// maxListed bounds the devices that an error names.
const maxListed = 12

func joinDevices(devices []Device) string {
	var all []string
	for i, d := range devices {
		if i == maxListed {
			all = append(all, fmt.Sprintf("and %d more", len(devices)-i))
			break
		}
		all = append(all, d.String())
	}
	return strings.Join(all, ", ")
}

// Find returns the one device that query names by its ID, by its name with or
// without the tailnet's domain, or by an address. The error is an [UnknownError] or
// an [AmbiguousError].
func Find(query string, devices []Device) (Device, error) {
	if strings.Trim(query, ". ") == "" { // else it would match a device without a name
		return Device{}, UnknownError{query, similar(query, devices)}
	}
	// A full name takes precedence over a first label.
	for _, matches := range []func(Device) bool{
		func(d Device) bool { return d.hasExactly(query) },
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
	return Device{}, UnknownError{query, similar(query, devices)}
}

// hasExactly reports whether query is the device's ID, full name or address.
func (d Device) hasExactly(query string) bool {
	if a, err := netip.ParseAddr(query); err == nil {
		return slices.Contains(d.Addresses, a.Unmap()) || d.ID == query
	}
	return d.ID == query || strings.EqualFold(strings.TrimSuffix(d.Name, "."), strings.TrimSuffix(query, "."))
}

func isAddress(query string) bool {
	_, err := netip.ParseAddr(query)
	return err == nil
}

// label returns the first label of a name.
func label(name string) string {
	first, _, _ := strings.Cut(name, ".")
	return first
}

// similar returns the devices whose names are close to the query, or all of them if
// none is.
func similar(query string, devices []Device) []Device {
	var found []Device
	for _, d := range devices {
		if !isAddress(query) && topology.EditDistance(strings.ToLower(label(query)), strings.ToLower(label(d.Name))) <= 2 {
			found = append(found, d)
		}
	}
	if len(found) == 0 {
		found = slices.Clone(devices)
	}
	slices.SortStableFunc(found, func(a, b Device) int { return cmp.Or(cmp.Compare(a.Name, b.Name), topology.CompareIDs(a.ID, b.ID)) })
	return found
}
