package yamldoc

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// List reads a JSON list of at most maxItems, one after the other, so that a
// list that is longer costs no memory. A null, or no text, is a nil list.
func List[T any](text []byte, maxItems int) ([]T, error) {
	if text = bytes.TrimSpace(text); len(text) == 0 || string(text) == "null" {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	begin, err := d.Token()
	if err != nil {
		return nil, err // says what was read
	}
	if begin != json.Delim('[') {
		return nil, fmt.Errorf("must be a list, and not %.40s", text)
	}
	all := []T{}
	for d.More() {
		if len(all) == maxItems {
			return nil, fmt.Errorf("holds more than %d entries", maxItems)
		}
		var one T
		if err := d.Decode(&one); err != nil {
			return nil, fmt.Errorf("entry %d: %w", len(all)+1, err)
		}
		all = append(all, one)
	}
	_, err = d.Token()
	return all, err
}
