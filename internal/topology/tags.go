package topology

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// key is one that tags, grants and posture attributes share.
type key int

// The keys, in the order in which [Explain] lists them.
const (
	keyService key = iota
	keyWeight
	keyRegion
	keyZone
	keyPort
	keyPriority
	numKeys
)

// keyTable returns the row of each key. To add a key, add its constant and its row:
// how tags, grants and attributes are parsed, defaults, explanations, suggestions
// and the test of the documentation follow from them.
func keyTable() [numKeys]keyRow {
	zero := func(Rules) uint32 { return 0 }
	one := func(Rules) uint32 { return 1 }
	none := func(Rules) string { return "" }
	return [numKeys]keyRow{
		keyService: nameKey("service", func(r Rules) string { return r.DefaultService }, func(m *member) *string { return &m.service }).joins(),
		keyWeight:  numberKey("weight", 0, 1000, one, func(m *member) *uint32 { return &m.Weight }).joins(),
		keyRegion:  nameKey("region", none, func(m *member) *string { return &m.Region }),
		keyZone:    nameKey("zone", none, func(m *member) *string { return &m.Zone }),
		keyPort:    portKey("port", func(r Rules) uint32 { return uint32(r.DefaultPort) }),
		// 128 is Envoy's own bound.
		keyPriority: numberKey("priority", 0, 128, zero, func(m *member) *uint32 { return &m.Priority }),
	}
}

// KeyNames returns the names of the keys that tags, grants and posture attributes
// share, sorted.
func KeyNames() []string {
	var names []string
	for _, row := range keyTable() {
		names = append(names, row.name)
	}
	slices.Sort(names)
	return names
}

// member is an endpoint and the service it is in.
type member struct {
	service string
	Endpoint
}

// value is the value of a key: a number or a name.
type value struct {
	number uint32
	name   string
}

// compare orders values: of several, the lowest counts.
func (v value) compare(o value) int {
	return cmp.Or(cmp.Compare(v.number, o.number), strings.Compare(v.name, o.name))
}

// keyRow is what a key is.
type keyRow struct {
	name string
	// numeric says that the value is a number, which a grant writes as a JSON number.
	numeric bool
	// makesEndpoint says that a device with this key is an endpoint, also without a grant.
	makesEndpoint bool
	// parse reads the value.
	parse func(text string) (value, error)
	// fallback is the value of a device that has none.
	fallback func(Rules) value
	// get and set read and write the value of an endpoint.
	get func(member) value
	set func(*member, value)
}

// joins makes a device with this key an endpoint.
func (r keyRow) joins() keyRow {
	r.makesEndpoint = true
	return r
}

// text formats a value for explanations.
func (r keyRow) text(v value) string {
	if r.numeric {
		return strconv.FormatUint(uint64(v.number), 10)
	}
	return v.name
}

// numberKey returns the row of a key whose value is a number from low to high.
func numberKey(name string, low, high uint32, fallback func(Rules) uint32, at func(*member) *uint32) keyRow {
	return keyRow{
		name: name, numeric: true,
		parse: func(text string) (value, error) {
			n, err := parseNumber(text, low, high)
			return value{number: n}, err
		},
		fallback: func(r Rules) value { return value{number: fallback(r)} },
		get:      func(m member) value { return value{number: *at(&m)} },
		set:      func(m *member, v value) { *at(m) = v.number },
	}
}

// portKey returns the row of the port, which is a part of the endpoint's address.
func portKey(name string, fallback func(Rules) uint32) keyRow {
	r := numberKey(name, 1, 65535, fallback, nil)
	r.get = func(m member) value { return value{number: uint32(m.Address.Port())} }
	r.set = func(m *member, v value) { m.Address = netip.AddrPortFrom(m.Address.Addr(), uint16(v.number)) }
	return r
}

// nameKey returns the row of a key whose value is a name.
func nameKey(name string, fallback func(Rules) string, at func(*member) *string) keyRow {
	return keyRow{
		name: name,
		parse: func(text string) (value, error) {
			n, err := ParseName(text)
			return value{name: n}, err
		},
		fallback: func(r Rules) value { return value{name: fallback(r)} },
		get:      func(m member) value { return value{name: *at(&m)} },
		set:      func(m *member, v value) { *at(m) = v.name },
	}
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

// ParseName reads the name of a service, region or zone. It folds case:
// Tailscale allows both in a tag, and Envoy takes no two domains that differ
// in case only.
func ParseName(s string) (string, error) {
	const allowed = "abcdefghijklmnopqrstuvwxyz0123456789-"
	s = strings.ToLower(s)
	if s == "" || len(s) > 63 || strings.Trim(s, allowed) != "" || strings.Trim(s, "-") != s {
		return "", errors.New("must be 1 to 63 letters, digits and inner dashes")
	}
	return s, nil
}

// ValidName returns an error if s can't be the name of a service, region or zone.
func ValidName(s string) error {
	_, err := ParseName(s)
	return err
}

// grammar is how tags, grants and attributes are written.
type grammar struct {
	rows   [numKeys]keyRow
	byName map[string]key
	names  []string // sorted
	prefix string   // of our tags, "tag:" and what follows; in lower case
}

// newGrammar returns the grammar with the prefix of [Rules.TagPrefix].
func newGrammar(tagPrefix string) grammar {
	g := grammar{rows: keyTable(), byName: make(map[string]key, numKeys), names: KeyNames(), prefix: "tag:" + strings.ToLower(tagPrefix)}
	for k := range g.rows {
		g.byName[g.rows[k].name] = key(k)
	}
	return g
}

// lookup returns the key of a name, in any case.
func (g grammar) lookup(name string) (key, bool) {
	k, known := g.byName[strings.ToLower(name)]
	return k, known
}

// tag returns how a tag is written.
func (g grammar) tag(name, value string) string { return g.prefix + name + "-" + value }

// cutTag splits a tag of ours, "tag:weight-2", into its key and the text of its value.
func (g grammar) cutTag(tag string) (k key, text string, ours bool) {
	rest, prefixed := cutPrefixFold(tag, g.prefix)
	name, text, cut := strings.Cut(rest, "-")
	if !prefixed || !cut {
		return 0, "", false
	}
	k, known := g.lookup(name)
	return k, text, known
}

func cutPrefixFold(s, prefix string) (string, bool) {
	head := s[:min(len(prefix), len(s))]
	if !strings.EqualFold(head, prefix) {
		return s, false
	}
	return s[len(head):], true
}

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
		_, text, ours := g.cutTag(tag)
		return ours && text != ""
	})
}

// AttributeKey returns what a posture attribute sets: "weight" for
// "custom:tailxds_weight". It is false for an attribute that is not ours. Tailscale
// allows no dash in a key today; one is read all the same, and case is folded, as
// there. See https://tailscale.com/kb/1288/device-posture.
func AttributeKey(attribute string) (string, bool) {
	prefix := strings.TrimSuffix(attributePrefix, "_")
	rest, ours := cutPrefixFold(attribute, prefix)
	if !ours || len(rest) < 2 || !strings.ContainsRune("_-:", rune(rest[0])) {
		return "", false
	}
	return strings.ToLower(rest[1:]), true
}
