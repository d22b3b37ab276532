package topology

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// spec describes a device in one service.
type spec struct {
	settings [numKeys]setting
	// unknownKey is true if the device has a key of ours that does not exist, by a
	// typo or from another version. Any key without a value may have been meant.
	unknownKey bool
}

// setting is the value of one key in a spec.
type setting struct {
	value  value
	given  bool   // whether there is a value
	from   Source // of the value
	reject bool   // whether an invalid value was given
}

// give stores a value, unless a lower one is there, and reports whether one is.
func (s *setting) give(v value) (lower bool) {
	if s.given && s.value.compare(v) <= 0 {
		return true
	}
	s.value, s.given = v, true
	return false
}

// hasInvalid reports whether any value or key is invalid.
func (s *spec) hasInvalid() bool {
	return s.unknownKey || slices.ContainsFunc(s.settings[:], func(v setting) bool { return v.reject })
}

// invalid reports whether the value of a key is invalid, or may stand under an
// unknown key.
func (s *spec) invalid(k key) bool {
	return s.settings[k].reject || (s.unknownKey && !s.settings[k].given)
}

// rejectAll marks every key as one whose value can't be read.
func (s *spec) rejectAll() {
	for k := range s.settings {
		s.settings[k].reject = true
	}
}

// over fills what s leaves open from below. A key whose value in s can't be read
// stays marked, though the value below is filled in: it counts on a new device.
func (s spec) over(below *spec) spec {
	s.unknownKey = s.unknownKey || below.unknownKey
	for k, b := range below.settings {
		if at := &s.settings[k]; !at.given {
			b.reject = b.reject || at.reject
			*at = b
		}
	}
	return s
}

// Source is where a value comes from.
type Source struct {
	Kind SourceKind `json:"kind"`
	// Text is the tag, grant or attribute as it was written, or what else it is.
	Text string `json:"text"`
}

// SourceKind is the kind of a source.
type SourceKind string

// The kinds of sources, in the order in which they win.
const (
	FromOperator  SourceKind = "operator"
	FromAttribute SourceKind = "attribute"
	FromGrant     SourceKind = "grant"
	FromTag       SourceKind = "tag"
	FromDefault   SourceKind = "default"
	// FromLast is the last valid value, where the current one can't be read.
	FromLast SourceKind = "kept"
)

// finding is a problem before its device is known.
type finding struct{ subject, reason string }

// parseTags reads a device's tags, and ignores those of other purposes.
func (g grammar) parseTags(tags []string) (spec, []finding) {
	var s spec
	var found []finding
	var first [numKeys]string
	// Sorted, so that the same tags in another order mean the same.
	if !slices.IsSorted(tags) {
		tags = slices.Clone(tags)
		slices.Sort(tags)
	}
	for _, tag := range tags {
		k, text, ours := g.cutTag(tag)
		if !ours {
			if likely := g.suggestTag(tag); likely != "" {
				s.unknownKey = true
				found = append(found, finding{tag, fmt.Sprintf("unknown tag: did you mean %s? %s", likely, untilFixed)})
			}
			continue
		}
		at := &s.settings[k]
		v, err := g.rows[k].parse(text)
		if err != nil {
			at.reject = true
			found = append(found, finding{tag, fmt.Sprintf("ignored: the value of %s %v", g.tag(g.rows[k].name, "…"), err)})
			continue
		}
		counts := tag
		if lower := at.give(v); first[k] != "" && first[k] != tag {
			loses := first[k]
			if lower {
				counts, loses = loses, counts
			}
			found = append(found, finding{loses, fmt.Sprintf("ignored: %s is there too and the lowest counts; remove one", counts)})
		}
		first[k], at.from = counts, Source{FromTag, counts}
	}
	return s, found
}

// untilFixed is the effect of an unknown key on a device.
const untilFixed = "a device that is new joins no service until this is fixed"

// parseGrant reads one value of the endpoint capability. Keys fold case, as tags do.
func (g grammar) parseGrant(raw json.RawMessage) (spec, []finding) {
	subject := compact(raw)
	var s spec
	var object map[string]json.RawMessage
	if err := json.Unmarshal(raw, &object); err != nil || object == nil {
		s.rejectAll()
		return s, []finding{{subject, "ignored: a grant must be a JSON object such as {\"service\":\"hello\",\"weight\":2}"}}
	}
	var found []finding
	var written [numKeys]string
	for _, name := range slices.Sorted(maps.Keys(object)) {
		k, known := g.lookup(name)
		if !known {
			s.unknownKey = true
			found = append(found, finding{subject, fmt.Sprintf("unknown key %q: %sthe keys are %s; %s", name, didYouMean(g.suggestKey(name)), g.keyList(), untilFixed)})
			continue
		}
		at := &s.settings[k]
		if other := written[k]; other != "" {
			at.reject = true
			found = append(found, finding{subject, fmt.Sprintf("ignored: %q and %q are the same key; remove one", other, name)})
			continue
		}
		written[k] = name
		v, err := g.rows[k].parseJSON(object[name])
		if err != nil {
			at.reject = true
			found = append(found, finding{subject, fmt.Sprintf("ignored: %s %v", g.rows[k].name, err)})
			continue
		}
		at.give(v)
		at.from = Source{FromGrant, subject}
	}
	return s, found
}

// parseJSON reads the value from a JSON number or string.
func (r keyRow) parseJSON(raw json.RawMessage) (value, error) {
	if r.numeric {
		if raw[0] == '"' {
			return value{}, errors.New("must be a JSON number, not a string")
		}
		return r.parse(string(raw))
	}
	if raw[0] != '"' {
		return value{}, errors.New("must be a JSON string")
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return value{}, fmt.Errorf("must be a JSON string: %w", err)
	}
	return r.parse(s)
}

// compact returns raw on one line, cut to the length of a log line.
func compact(raw json.RawMessage) string {
	const maxBytes = 200
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		b.Reset()
		b.WriteString(strings.ToValidUTF8(string(raw), "?"))
	}
	if b.Len() > maxBytes {
		return strings.ToValidUTF8(b.String()[:maxBytes], "") + "…"
	}
	return b.String()
}

// parseAttributes reads posture attributes, whose values are written as in tags.
func (g grammar) parseAttributes(attributes map[string]string) (spec, []finding) {
	var s spec
	var found []finding
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		subject := attributePrefix + name + "=" + attributes[name]
		k, known := g.lookup(name)
		if !known {
			s.unknownKey = true
			found = append(found, finding{subject, fmt.Sprintf("unknown attribute: %sthe attributes are %s; %s", didYouMean(g.suggestKey(name)), g.keyList(), untilFixed)})
			continue
		}
		at := &s.settings[k]
		v, err := g.rows[k].parse(attributes[name])
		if err != nil {
			at.reject = true
			found = append(found, finding{subject, fmt.Sprintf("ignored: %s %v", name, err)})
			continue
		}
		if lower := at.give(v); !lower {
			at.from = Source{FromAttribute, subject}
		}
	}
	return s, found
}

// keyList returns the keys as problems list them.
func (g grammar) keyList() string { return strings.Join(g.names, ", ") }
