package document

import (
	"fmt"

	"go.yaml.in/yaml/v4"
)

// FromJSON writes a JSON text as YAML, its keys in their order.
func FromJSON(text []byte) ([]byte, error) {
	var n yaml.Node // JSON is YAML
	if err := yaml.Load(text, &n); err != nil {
		return nil, fmt.Errorf("read JSON: %w", err)
	}
	plain(&n)
	text, err := yaml.Dump(&n, yaml.WithLineWidth(-1), yaml.WithQuotePreference(yaml.QuoteDouble))
	if err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	return text, nil
}

// plain takes away the braces and quotes that JSON needs.
func plain(n *yaml.Node) {
	n.Style = 0
	for _, of := range n.Content {
		plain(of)
	}
}
