package provider

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// decodeList reads a JSON object and hands each element of its list under key
// to each, one by one, so that memory holds the devices and not the document.
// Other keys are passed over, but not one that says there is more to fetch:
// neither API pages its devices today, and a first page is not a list.
func decodeList[T any](r io.Reader, key string, each func(T) error) error {
	d := json.NewDecoder(r)
	if err := expect(d, '{', "an object"); err != nil {
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
	if err := expect(d, '}', "the end of the object"); err != nil {
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
		var v T
		if err := d.Decode(&v); err != nil {
			return fmt.Errorf("decode element %d of %q: %w", i, key, err)
		}
		if err := each(v); err != nil {
			return fmt.Errorf("element %d of %q: %w", i, key, err)
		}
	}
	return expect(d, ']', "the end of the list")
}

func expect(d *json.Decoder, want json.Delim, what string) error {
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
	return fmt.Errorf("unknown shape: %q says that the list goes on; this version reads lists of one page only", key)
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
