package yamldoc

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// FromJSON converts a JSON document to YAML in the order of its keys. Texts stay
// texts also for readers of YAML 1.1, such as Envoy's and Python's.
func FromJSON(text []byte) ([]byte, error) {
	var n yaml.Node // JSON is YAML
	if err := yaml.Load(text, &n); err != nil {
		return nil, fmt.Errorf("read JSON: %w", err)
	}
	simplifyStyle(&n)
	text, err := yaml.Dump(&n, yaml.WithLineWidth(-1), yaml.WithQuotePreference(yaml.QuoteDouble))
	if err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	return text, nil
}

// simplifyStyle removes the braces and quotes that JSON needs and YAML does not.
func simplifyStyle(n *yaml.Node) {
	text := n.Kind == yaml.ScalarNode && n.Style&yaml.DoubleQuotedStyle != 0
	n.Style = 0
	if text && ambiguous(n.Value) {
		n.Style = yaml.DoubleQuotedStyle
	}
	for _, of := range n.Content {
		simplifyStyle(of)
	}
}

// ambiguous reports whether a reader of YAML 1.1 takes a text without quotes for a
// boolean, null, a number or a time. The library knows what needs quotes in YAML
// 1.2.
// See https://yaml.org/type/bool.html and the pages beside it.
func ambiguous(text string) bool {
	words := []string{
		"y", "n", "yes", "no", "on", "off", "true", "false", "null", "~", "=",
		"inf", "infinity", "nan", // C++ reads these as numbers
	}
	const digits, signs, others = "0123456789", "+-.", "abcdefxop_,:tz " // of hexadecimal numbers and times, too
	lower := strings.ToLower(text)
	return slices.Contains(words, strings.TrimLeft(lower, signs)) ||
		(lower != "" && strings.ContainsRune(digits+signs, rune(lower[0])) && strings.Trim(lower, digits+signs+others) == "")
}
