package topology

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// The keys that a tag, a grant and an attribute share.
const (
	keyWeight   = "weight"
	keyService  = "service"
	keyRegion   = "region"
	keyZone     = "zone"
	keyPort     = "port"
	keyPriority = "priority"
)

// keyNames are the keys as problems list them.
const keyNames = "port, priority, region, service, weight, zone"

// spec is what one device says of one service. Pointers, because what was not
// said is filled in from the next source.
type spec struct {
	weight, port, priority *uint32
	service, region, zone  *string
	// from tells where each value that is there was said.
	from map[string]Source
	// bad are the keys whose value can't be read. What was said last counts for them.
	bad keys
	// unknownKey is true if a key of ours was said that is none, by a typo or an
	// older version: any key that was not said may have been meant.
	unknownKey bool
}

// keys is a set of the grammar's keys.
type keys map[string]bool

func (k *keys) add(key string) {
	if key == "" {
		return
	}
	if *k == nil {
		*k = make(keys)
	}
	(*k)[key] = true
}

// field is one row of the grammar: how the value of a key is read into a spec.
type field struct {
	// number says that a grant writes it as a JSON number.
	number bool
	// set reads the value and stores it. lower is true where the value stored
	// before counts, because it is lower.
	set func(*spec, string) (lower bool, err error)
}

// grammar is how each key is read.
type grammar struct {
	rows map[string]field
	// prefix begins the tags that are ours, behind "tag:"; in lower case.
	prefix string
}

// newGrammar returns the whole grammar, with the prefix of [Rules.TagPrefix]. To
// add a tag, add a row.
func newGrammar(tagPrefix string) grammar {
	return grammar{prefix: strings.ToLower(tagPrefix), rows: map[string]field{
		keyWeight:   number(0, 1000, func(s *spec) **uint32 { return &s.weight }),
		keyPort:     number(1, 65535, func(s *spec) **uint32 { return &s.port }),
		keyPriority: number(0, 128, func(s *spec) **uint32 { return &s.priority }), // Envoy's own bound
		keyService:  name(func(s *spec) **string { return &s.service }),
		keyRegion:   name(func(s *spec) **string { return &s.region }),
		keyZone:     name(func(s *spec) **string { return &s.zone }),
	}}
}

// tag returns how a tag is written.
func (g grammar) tag(key, value string) string { return "tag:" + g.prefix + key + "-" + value }

// cutPrefix returns what a tag says behind the prefix, and whether it has it.
func (g grammar) cutPrefix(tag string) (string, bool) { return cutPrefixFold(tag, "tag:"+g.prefix) }

// ValidTagPrefix returns an error if s can't begin tags; the empty prefix is valid.
// See https://tailscale.com/kb/1068/tags.
func ValidTagPrefix(s string) error {
	const letters = "abcdefghijklmnopqrstuvwxyz"
	lower := strings.ToLower(s)
	if s != "" && (len(s) > 32 || strings.Trim(lower, letters+"0123456789-") != "" || !strings.ContainsRune(letters, rune(lower[0]))) {
		return errors.New("must be what stands behind tag:, a letter and then letters, digits and dashes, such as pool-")
	}
	return nil
}

// Tagged reports whether any tag is one of ours, whatever its value. The prefix is
// that of [Rules.TagPrefix].
func Tagged(tags []string, tagPrefix string) bool {
	g := newGrammar(tagPrefix)
	return slices.ContainsFunc(tags, func(tag string) bool {
		rest, prefixed := g.cutPrefix(tag)
		key, value, _ := strings.Cut(rest, "-")
		_, ours := g.rows[strings.ToLower(key)]
		return prefixed && ours && value != ""
	})
}

// number makes the row of a key whose value is a number from low to high.
func number(low, high uint32, at func(*spec) **uint32) field {
	return field{number: true, set: func(s *spec, value string) (bool, error) {
		n, err := parseNumber(value, low, high)
		if err != nil {
			return false, err
		}
		return keepLower(at(s), n), nil
	}}
}

// name makes the row of a key whose value is a name.
func name(at func(*spec) **string) field {
	return field{set: func(s *spec, value string) (bool, error) {
		n, err := ParseName(value)
		if err != nil {
			return false, err
		}
		return keepLower(at(s), n), nil
	}}
}

// keepLower stores v unless a lower value is there, and tells whether one is.
func keepLower[T uint32 | string](at **T, v T) bool {
	if *at != nil && **at <= v {
		return true
	}
	*at = &v
	return false
}

// parseNumber reads plain decimal digits: no sign, point, exponent or space.
func parseNumber(s string, low, high uint32) (uint32, error) {
	plain := s != "" && strings.Trim(s, "0123456789") == ""
	n, err := strconv.ParseUint(s, 10, 32)
	if !plain || err != nil || n < uint64(low) || n > uint64(high) {
		return 0, fmt.Errorf("must be a whole number from %d to %d in plain digits", low, high)
	}
	return uint32(n), nil
}

// ParseName reads the name of a service, region or zone. Case is folded:
// Tailscale allows both in a tag, and Envoy takes no two domains that differ
// in case only.
func ParseName(s string) (string, error) {
	const allowed = "abcdefghijklmnopqrstuvwxyz0123456789-"
	s = strings.ToLower(s)
	if s == "" || len(s) > 63 || strings.Trim(s, allowed) != "" || strings.Trim(s, "-") != s {
		return "", fmt.Errorf("must be 1 to 63 letters, digits and inner dashes")
	}
	return s, nil
}

// ValidName tells whether s can be the name of a service, region or zone.
func ValidName(s string) error {
	_, err := ParseName(s)
	return err
}

// complaint is a problem before it is known whose it is.
type complaint struct{ subject, reason string }

// parseTags reads a device's tags. Tags of other purposes are passed over.
func (g grammar) parseTags(tags []string) (spec, []complaint) {
	var s spec
	var bad []complaint
	first := make(map[string]string)
	// Sorted, so that the same tags in another order mean the same.
	for _, tag := range slices.Sorted(slices.Values(tags)) {
		rest, prefixed := g.cutPrefix(tag)
		key, value, cut := strings.Cut(rest, "-")
		key = strings.ToLower(key)
		row, known := g.rows[key]
		if !prefixed || !cut || !known {
			if likely := g.likelyTag(tag); likely != "" {
				s.unknownKey = true
				bad = append(bad, complaint{tag, fmt.Sprintf("unknown tag: did you mean %s? %s", likely, untilFixed)})
			}
			continue
		}
		lower, err := row.set(&s, value)
		if err != nil {
			s.bad.add(key)
			bad = append(bad, complaint{tag, fmt.Sprintf("ignored: the value of %s %v", g.tag(key, "…"), err)})
			continue
		}
		if other, twice := first[key]; twice && other != tag {
			counts, loses := tag, other
			if lower {
				counts, loses = other, tag
			}
			bad = append(bad, complaint{loses, fmt.Sprintf("ignored: %s is there too and the lowest counts; remove one", counts)})
			first[key] = counts
			s.said(key, Source{FromTag, counts})
			continue
		}
		first[key] = tag
		s.said(key, Source{FromTag, tag})
	}
	return s, bad
}

// untilFixed says what becomes of a device with a key of ours that is none.
const untilFixed = "a device that is new joins no service until this is fixed"

func cutPrefixFold(s, prefix string) (string, bool) {
	head := s[:min(len(prefix), len(s))]
	if !strings.EqualFold(head, prefix) {
		return s, false
	}
	return s[len(head):], true
}

// parseGrant reads one value of the endpoint capability. Keys fold case, as tags do.
func (g grammar) parseGrant(raw json.RawMessage) (spec, []complaint) {
	subject := compact(raw)
	var s spec
	var object map[string]json.RawMessage
	if err := json.Unmarshal(raw, &object); err != nil || object == nil {
		for key := range g.rows {
			s.bad.add(key)
		}
		return s, []complaint{{subject, "ignored: a grant must be a JSON object such as {\"service\":\"hello\",\"weight\":2}"}}
	}
	var bad []complaint
	written := make(map[string]string)
	for _, text := range slices.Sorted(maps.Keys(object)) {
		key := strings.ToLower(text)
		row, ours := g.rows[key]
		if !ours {
			s.unknownKey = true
			bad = append(bad, complaint{subject, fmt.Sprintf("unknown key %q: %sthe keys are %s; %s", text, didYouMean(g.meant(key)), keyNames, untilFixed)})
			continue
		}
		if other, twice := written[key]; twice {
			s.bad.add(key)
			bad = append(bad, complaint{subject, fmt.Sprintf("ignored: %q and %q are the same key; remove one", other, text)})
			continue
		}
		written[key] = text
		value, err := scalar(object[text], row.number)
		if err == nil {
			_, err = row.set(&s, value)
		}
		if err != nil {
			s.bad.add(key)
			bad = append(bad, complaint{subject, fmt.Sprintf("ignored: %s %v", key, err)})
			continue
		}
		s.said(key, Source{FromGrant, subject})
	}
	return s, bad
}

// scalar is a JSON number's text, or a JSON string's value.
func scalar(raw json.RawMessage, number bool) (string, error) {
	if number {
		if raw[0] == '"' {
			return "", fmt.Errorf("must be a JSON number, not a string")
		}
		return string(raw), nil
	}
	var s string
	if raw[0] != '"' {
		return "", fmt.Errorf("must be a JSON string")
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return "", fmt.Errorf("must be a JSON string: %w", err)
	}
	return s, nil
}

// compact is raw on one line and no longer than a log line should be.
func compact(raw json.RawMessage) string {
	const most = 200
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		b.Reset()
		b.WriteString(strings.ToValidUTF8(string(raw), "?"))
	}
	if b.Len() > most {
		return strings.ToValidUTF8(b.String()[:most], "") + "…"
	}
	return b.String()
}

// parseAttributes reads posture attributes, which have the tags' grammar.
func (g grammar) parseAttributes(attributes map[string]string) (spec, []complaint) {
	var s spec
	var bad []complaint
	for _, key := range slices.Sorted(maps.Keys(attributes)) {
		subject := attributePrefix + key + "=" + attributes[key]
		row, ours := g.rows[strings.ToLower(key)]
		if !ours {
			s.unknownKey = true
			bad = append(bad, complaint{subject, fmt.Sprintf("unknown attribute: %sthe attributes are %s; %s", didYouMean(g.meant(key)), keyNames, untilFixed)})
			continue
		}
		lower, err := row.set(&s, attributes[key])
		if err != nil {
			s.bad.add(strings.ToLower(key))
			bad = append(bad, complaint{subject, fmt.Sprintf("ignored: %s %v", key, err)})
			continue
		}
		if !lower {
			s.said(strings.ToLower(key), Source{FromAttribute, subject})
		}
	}
	return s, bad
}

// over fills what s leaves open from below. A key that is bad in s stays bad,
// though the value below is filled in: it counts if nothing was published yet.
func (s spec) over(below spec) spec {
	s.bad, s.unknownKey = s.open(s.bad, below.bad), s.unknownKey || below.unknownKey
	s.from = maps.Clone(s.from)
	for key, source := range below.from {
		if !s.says(key) {
			s.said(key, source)
		}
	}
	fill(&s.weight, below.weight)
	fill(&s.port, below.port)
	fill(&s.priority, below.priority)
	fill(&s.service, below.service)
	fill(&s.region, below.region)
	fill(&s.zone, below.zone)
	return s
}

// open are the keys of s, and those of below that s does not say.
func (s spec) open(of, below keys) keys {
	all := maps.Clone(of)
	for key := range below {
		if !s.says(key) {
			all.add(key)
		}
	}
	return all
}

// says tells whether s has a value of its own for a key.
func (s spec) says(key string) bool {
	switch key {
	case keyWeight:
		return s.weight != nil
	case keyPort:
		return s.port != nil
	case keyPriority:
		return s.priority != nil
	case keyService:
		return s.service != nil
	case keyRegion:
		return s.region != nil
	default:
		return s.zone != nil
	}
}

func fill[T any](at **T, below *T) {
	if *at == nil {
		*at = below
	}
}
