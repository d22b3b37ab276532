package yamldoc

import "fmt"

// exceeded says which limit a text exceeds, before anything is built of it.
func (l Limits) exceeded(text []byte) string {
	switch {
	case len(text) > l.Bytes:
		return fmt.Sprintf("this is larger than %d bytes", l.Bytes)
	case countValues(text) > l.Values:
		return fmt.Sprintf("this holds more than %d values", l.Values)
	default:
		return ""
	}
}

// countValues is at least how many values the YAML of a text has, and about that
// many: each follows a sign of structure, or lies in a line that has one. Comments
// of whole lines have none.
func countValues(text []byte) int {
	count, comment, fresh := 0, false, true // fresh: nothing but blanks in this line yet
	for i, c := range text {
		switch c {
		case '\n', '\r', 0x85, 0xa8, 0xa9: // the last bytes of what ends a line of YAML 1.1
			comment, fresh = false, true
			continue
		case ' ', '\t':
			continue
		case '#':
			comment = comment || fresh
		}
		fresh = false
		if comment {
			continue
		}
		switch c {
		case ':', ',':
			count += 2
		case '[', '{', '*':
			count++
		case '-', '?':
			if i+1 == len(text) || text[i+1] <= ' ' {
				count += 2
			}
		}
	}
	return count + 1
}
