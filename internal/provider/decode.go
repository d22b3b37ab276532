package provider

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"github.com/tailxds/tailxds/internal/topology"
)

// These bound the memory of a list, whatever its server sends.
const (
	// maxDevices bounds how many devices a list has, and maxDeviceBytes the JSON of
	// one: Tailscale's is some 1,000 bytes, headscale's some 2,000.
	maxDevices     = 50_000
	maxDeviceBytes = 64 << 10
	// maxTags and maxAddresses bound those of one device, and maxEntries those of
	// all.
	maxTags      = 256
	maxAddresses = 32
	maxEntries   = 1_000_000
)

// errTooManyDevices is the error of a list with more than maxDevices.
var errTooManyDevices = fmt.Errorf("the list has more than %d devices; nothing of it is used", maxDevices)

// listSize is how much a list holds so far.
type listSize struct{ entries int }

// add counts a device, and fails if it or the list holds more than is read.
func (s *listSize) add(d topology.Device) error {
	s.entries += len(d.Tags) + len(d.Addresses)
	switch {
	case len(d.Tags) > maxTags || len(d.Addresses) > maxAddresses:
		return fmt.Errorf("the device %.80q has more than %d tags or %d addresses; nothing of the list is used", d.Name, maxTags, maxAddresses)
	case s.entries > maxEntries:
		return fmt.Errorf("the list has more than %d tags and addresses; nothing of it is used", maxEntries)
	default:
		return nil
	}
}

// decodeList reads a JSON object and hands each element of its list under key
// to each, one by one, so that memory holds the devices and not the document.
// It ignores other keys, but fails on one that announces a further page: neither
// API pages its devices today, and a first page is not a list.
func decodeList[T any](r io.Reader, key string, each func(T) error) error {
	d := json.NewDecoder(r)
	if err := expectToken(d, '{', "an object"); err != nil {
		return err
	}
	found := false
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return fmt.Errorf("decode JSON: %w", err)
		}
		switch {
		case name == key && found:
			return fmt.Errorf("unknown shape: two lists of %q", key)
		case name == key:
			found = true
			if err := decodeElements(d, key, each); err != nil {
				return err
			}
		case slices.Contains(pageKeys(), fmt.Sprint(name)):
			if err := refusePage(d, fmt.Sprint(name)); err != nil {
				return err
			}
		default:
			var skipped json.RawMessage
			if err := d.Decode(&skipped); err != nil {
				return fmt.Errorf("decode JSON: %w", err)
			}
		}
	}
	if err := expectToken(d, '}', "the end of the object"); err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("unknown shape: the answer has no %q", key)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("unknown shape: something follows the JSON document")
	}
	return nil
}

func decodeElements[T any](d *json.Decoder, key string, each func(T) error) error {
	t, err := d.Token()
	if err != nil {
		return fmt.Errorf("decode JSON: %w", err)
	}
	if t == nil { // null is an empty list
		return nil
	}
	if t != json.Delim('[') {
		return fmt.Errorf("unknown shape: %q is not a list", key)
	}
	for i := 0; d.More(); i++ {
		if i == maxDevices {
			return fmt.Errorf("%q: %w", key, errTooManyDevices)
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return fmt.Errorf("decode element %d of %q: %w", i, key, err)
		}
		if len(raw) > maxDeviceBytes {
			return fmt.Errorf("element %d of %q is larger than %d bytes", i, key, maxDeviceBytes)
		}
		var v T
		if err := json.Unmarshal(raw, &v); err != nil {
			return fmt.Errorf("decode element %d of %q: %w", i, key, err)
		}
		if err := each(v); err != nil {
			return fmt.Errorf("element %d of %q: %w", i, key, err)
		}
	}
	return expectToken(d, ']', "the end of the list")
}

func expectToken(d *json.Decoder, want json.Delim, what string) error {
	t, err := d.Token()
	if err != nil {
		return fmt.Errorf("decode JSON: %w", err)
	}
	if t != want {
		return fmt.Errorf("unknown shape: want %s", what)
	}
	return nil
}

// pageKeys are the names under which APIs hand out the next page.
func pageKeys() []string {
	return []string{"nextPageToken", "next_page_token", "nextPage", "next_page", "nextCursor", "next_cursor", "next", "cursor"}
}

// refusePage fails unless the key says that there is no further page.
func refusePage(d *json.Decoder, key string) error {
	var v any
	if err := d.Decode(&v); err != nil {
		return fmt.Errorf("decode JSON: %w", err)
	}
	if v == nil || v == "" || v == false {
		return nil
	}
	return fmt.Errorf("unknown shape: %q says that there is a further page, and tailxds reads lists of one page only", key)
}

// decodeWhole reads one JSON document and nothing after it into v. Numbers
// keep their text.
func decodeWhole(r io.Reader, v any) error {
	d := json.NewDecoder(r)
	d.UseNumber()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("decode JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("unknown shape: something follows the JSON document")
	}
	return nil
}

// hostAddresses returns the addresses without the prefix length of a single host:
// 100.64.0.1 for 100.64.0.1/32. Longer ranges stay, and are no device's own address.
func hostAddresses(addresses []string) []string {
	out := slices.Clone(addresses)
	for i, text := range out {
		if p, err := netip.ParsePrefix(text); err == nil && p.IsSingleIP() {
			out[i] = p.Addr().String()
		}
	}
	return out
}
