package topology

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// suggestTag returns the tag of ours that a tag of unknown purpose was probably
// meant to be: tag:weight-2 for tag:weigth-2, tag:weight_2 or weight-2. It is empty
// for all others. Tailnets are full of tags of other purposes, so a typo is only
// seen where the rest looks like one of ours: a number where a number belongs, the
// key's own first letter, and no other word. With a prefix, only what begins with it
// can be ours.
func (g grammar) suggestTag(tag string) string {
	rest, tagged := cutPrefixFold(strings.ToLower(tag), "tag:")
	prefix := strings.TrimPrefix(g.prefix, "tag:")
	rest, prefixed := strings.CutPrefix(rest, prefix)
	if !prefixed {
		return ""
	}
	bare := strings.TrimLeft(rest, "-_=.: ")
	if prefix == "" {
		bare = rest
	}
	written := tagged && bare == rest // as our tags are written, up to here
	word, joint, text := splitTag(bare)
	if word == "" || text == "" {
		return ""
	}
	best, minEdits := "", maxEdits+1
	for _, name := range g.names {
		numeric := g.rows[g.byName[name]].numeric
		edits := keyEdits(word, name, numeric)
		if edits < minEdits && (!written || word != name || joint != "-") && plausible(numeric, joint, text) {
			best, minEdits = name, edits
		}
	}
	if best == "" {
		return ""
	}
	return g.tag(best, text)
}

// maxEdits is the largest distance between a typo and the word that was meant.
const maxEdits = 2

// sorted returns a text with its letters in order.
func sorted(s string) string {
	b := []byte(s)
	slices.Sort(b)
	return string(b)
}

// splitTag cuts a tag behind its first letters: weight_2 is "weight", "_", "2".
// The joint is empty where no mark stands between: weight2.
func splitTag(s string) (word, joint, text string) {
	text = strings.TrimLeft(s, "abcdefghijklmnopqrstuvwxyz")
	word = s[:len(s)-len(text)]
	// A dash that was pasted from a text may be longer than a minus.
	behind := strings.TrimLeftFunc(text, func(r rune) bool { return strings.ContainsRune("_=.:/ −", r) || unicode.Is(unicode.Pd, r) })
	return word, text[:len(text)-len(behind)], behind
}

// plausible reports whether a value can be meant for a key. A mark must stand
// before a name, or "regional" would be a region.
func plausible(numeric bool, joint, text string) bool {
	if numeric {
		return strings.Trim(text, "0123456789") == ""
	}
	return joint != "" && ValidName(text) == nil
}

// tooManyEdits is what [EditDistance] and keyEdits return for words that are not
// near each other.
const tooManyEdits = 9

// keyEdits counts the edits between a word and a key; tooManyEdits if it is rather
// a word of its own.
func keyEdits(word, key string, numeric bool) int {
	if word == key {
		return 0
	}
	swapped := len(word) == len(key) && word[0] == key[1] && word[1] == key[0]
	if word[0] != key[0] && !swapped {
		return tooManyEdits // height-2, device-a, one-b
	}
	if word == key+"s" && !numeric {
		return tooManyEdits // services-a
	}
	short := len(key) <= 4 // near to many words, so it must at least have the same letters
	if short && (strings.Trim(word, key) != "" || len(word) < len(key) && !numeric) {
		return tooManyEdits // post-80, ports-80, zoe-a
	}
	edits, allowed := EditDistance(word, key), 1
	if (numeric && !short) || (!short && sorted(word) == sorted(key)) {
		allowed = maxEdits
	}
	if edits > allowed {
		return tooManyEdits
	}
	return edits
}

// suggestKey returns the key that was probably meant by an unknown one, where only
// our keys belong: in a grant or an attribute. It is empty if none is near.
func (g grammar) suggestKey(unknown string) string {
	unknown = strings.ToLower(unknown)
	best, minEdits := "", maxEdits+1
	for _, name := range g.names {
		if edits := EditDistance(unknown, name); edits < minEdits && edits <= len(name)/3 {
			best, minEdits = name, edits
		}
	}
	return best
}

// didYouMean asks for a key, if there is one to ask for.
func didYouMean(key string) string {
	if key == "" {
		return ""
	}
	return fmt.Sprintf("did you mean %q? ", key)
}

// EditDistance counts the letters to add, leave out, change, or exchange with their
// neighbor to make b of a. Where the lengths alone tell that it is more than two, it
// returns 9.
// See https://en.wikipedia.org/wiki/Damerau–Levenshtein_distance.
func EditDistance(a, b string) int {
	if d := len(a) - len(b); d > 2 || d < -2 {
		return tooManyEdits
	}
	// rows[0] is the row above, rows[1] the one above that.
	var rows [2][]int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		rows[0], rows[1] = row, rows[0]
		row = make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			changed := rows[0][j]
			if a[i] != b[j] {
				changed++
			}
			row[j+1] = min(changed, rows[0][j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], rows[1][j-1]+1)
			}
		}
	}
	return row[len(b)]
}
