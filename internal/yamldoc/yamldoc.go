// Package yamldoc reads YAML strictly, and reports every fault of a document with
// its place, its key and the remedy.
//
// It is pure. Whatever a text holds, the control plane survives it: deep nesting and
// endless references are faults like others.
package yamldoc

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// Limits bound a text. Reading costs some 20 µs a value.
type Limits struct {
	Bytes int
	// Values are keys, texts, lists and mappings, about.
	Values int
}

// DefaultLimits are those of a list of some 10,000 devices.
func DefaultLimits() Limits { return Limits{Bytes: 8 << 20, Values: 500_000} }

// Parse is [ParseWithin] the default limits.
func Parse(text []byte) (Section, error) { return ParseWithin(text, DefaultLimits()) }

// ParseWithin reads the one document that a text holds. An empty text is a section
// that is not written. The error is [Faults].
func ParseWithin(text []byte, limits Limits) (Section, error) {
	if what := limits.exceeded(text); what != "" {
		return Section{}, Faults{{Line: 1, Column: 1, Reason: what}}
	}
	if line, what := findUnreadable(text); what != "" {
		return Section{}, Faults{{Line: line, Column: 1, Reason: what}}
	}
	root := Section{faults: new(Faults)}
	var documents []yaml.Node
	err := yaml.Load(text, &documents, yaml.WithAllDocuments())
	switch {
	case err != nil:
		return Section{}, syntaxFaults(text, err)
	case len(documents) > 1:
		return Section{}, Faults{{Line: documents[1].Line, Column: 1, Reason: "a second YAML document begins here; one is wanted"}}
	case len(documents) == 0 || len(documents[0].Content) == 0:
		return root, nil
	}
	// What refers to itself, or grows by references without end, is found by
	// building all of it.
	var all any
	if err := documents[0].Load(&all, yaml.WithUniqueKeys(false)); err != nil {
		return Section{}, syntaxFaults(text, err)
	}
	root.nearest = documents[0].Content[0]
	root.node = resolve(root.nearest)
	return root, nil
}

// syntaxFaults is the library's first error, with its place. It takes a text that ends
// without a new line to have one more.
func syntaxFaults(text []byte, err error) Faults {
	at := &yaml.LoadError{Message: err.Error()}
	_ = errors.As(err, &at)
	reason := "this is no YAML that can be read: " + at.Message
	if at.ContextMsg != "" {
		reason += " " + at.ContextMsg
		if begins := at.ContextMark.Line; begins > 0 && begins != at.Mark.Line {
			reason += fmt.Sprintf(" that begins in line %d", begins)
		}
	}
	line, column := max(1, at.Mark.Line), max(1, at.Mark.Column)
	lines := lineBreak().Split(string(text), -1)
	if line > len(lines) {
		line, column = len(lines), utf8.RuneCountInString(lines[len(lines)-1])+1
	} else if tab := tabAt(lines[line-1], column); tab > 0 {
		column, reason = tab, "a tab stands here: YAML is indented with spaces, so use spaces"
	}
	return Faults{{Line: line, Column: column, Reason: reason}}
}

// tabAt is the column, from 1, of the tab because of which a line can't be read
// further than a column; 0 if it is none.
func tabAt(line string, column int) int {
	runes := []rune(line)
	if column > len(runes) {
		return 0
	}
	for i := column - 1; i >= 0 && unicode.IsSpace(runes[i]); i-- { // mixed ones are told at their end
		if runes[i] == '\t' {
			return i + 1
		}
	}
	return 0
}

// lineBreak is what ends a line of YAML 1.1, by which the library counts.
func lineBreak() *regexp.Regexp { return regexp.MustCompile("\r\n|[\n\r\u0085\u2028\u2029]") }

// findUnreadable says which line holds what no YAML may hold.
func findUnreadable(text []byte) (line int, what string) {
	line = 1
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		switch {
		case r == utf8.RuneError && size == 1:
			return line, "this is no UTF-8 text"
		case r == '\n':
			line++
		case unicode.IsControl(r) && !strings.ContainsRune("\t\r\u0085", r):
			return line, fmt.Sprintf(`the control character %U can't be read: write it as an escape within "…"`, r)
		}
		text = text[size:]
	}
	return 0, ""
}

// resolve is what an alias stands for.
func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// pair is a key and its value in a mapping, or in one that is merged into it.
type pair struct {
	key, value *yaml.Node
	merged     bool
}

// pairs are what stands in a mapping, and then what it merges: <<: *other.
func pairs(n *yaml.Node) []pair {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	var own, merged []pair
	merge := func(of *yaml.Node) {
		for _, p := range pairs(resolve(of)) {
			merged = append(merged, pair{p.key, p.value, true})
		}
	}
	for both := range slices.Chunk(n.Content, 2) {
		key, value := resolve(both[0]), both[1]
		switch of := resolve(value); {
		case key.ShortTag() != "!!merge":
			own = append(own, pair{key, value, false})
		case of.Kind == yaml.SequenceNode:
			for _, one := range of.Content {
				merge(one)
			}
		default:
			merge(of)
		}
	}
	return append(own, merged...)
}

// describe is what stands there, for people.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys with values"
	case yaml.SequenceNode:
		return "a list"
	default:
		return Quoted(n.Value)
	}
}

// Quoted is a value in quotes, as long as people read.
func Quoted(value string) string {
	const most = 60
	if r := []rune(value); len(r) > most {
		value = string(r[:most]) + "…"
	}
	return strconv.Quote(value)
}
