package topology

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
)

// likelyTag is the tag of ours that a tag of unknown purpose was probably meant
// to be: tag:weight-2 for tag:weigth-2, tag:weight_2 or weight-2. It is empty
// for all others. Tailnets are full of tags of other purposes, so a slip is
// only seen where the rest looks like one of ours: a number where a number
// belongs, the key's own first letter, and no other word.
func (g grammar) likelyTag(tag string) string {
	lower := strings.ToLower(tag)
	rest, prefixed := cutPrefixFold(lower, "tag:")
	if g.prefix != "" {
		var exact bool
		if rest, exact = g.likelyPrefix(rest); !exact {
			prefixed = false
		}
	}
	word, joint, value := splitTag(rest)
	if word == "" || value == "" {
		return ""
	}
	best, least := "", 3
	for _, key := range slices.Sorted(maps.Keys(g.rows)) {
		exact := word == key && joint == "-"
		slips := slipsOf(word, key, g.rows[key].number)
		if slips < least && (!exact || !prefixed) && fits(g.rows[key].number, joint, value) {
			best, least = key, slips
		}
	}
	if best == "" {
		return ""
	}
	return g.tag(best, value)
}

// likelyPrefix cuts the prefix off what stands behind "tag:", also one with other
// marks or with letters exchanged: pool_weight-2, poolweight-2, polo-weight-2. It
// is empty for all else, and so for a tag of another pool, whose prefix may differ in
// one letter.
func (g grammar) likelyPrefix(text string) (rest string, exact bool) {
	const marks = "-_=.: "
	if rest, exact = strings.CutPrefix(text, g.prefix); exact {
		bare := strings.TrimLeft(rest, marks)
		return bare, bare == rest
	}
	letters := func(s string) string {
		return strings.Map(func(r rune) rune {
			if strings.ContainsRune(marks, r) {
				return -1
			}
			return r
		}, s)
	}
	want := letters(g.prefix)
	for end := 1; end <= min(len(text), len(g.prefix)+2); end++ {
		got := letters(text[:end])
		swapped := len(want) >= 4 && sorted(got) == sorted(want) && EditDistance(got, want) <= 1
		if (got == want || swapped) && !strings.ContainsAny(text[end:min(end+1, len(text))], marks) {
			return text[end:], false
		}
	}
	return "", false
}

// sorted is a text with its letters in order.
func sorted(s string) string {
	b := []byte(s)
	slices.Sort(b)
	return string(b)
}

// splitTag cuts a tag behind its first letters: weight_2 is "weight", "_", "2".
// The joint is empty where no mark stands between: weight2.
func splitTag(s string) (word, joint, value string) {
	value = strings.TrimLeft(s, "abcdefghijklmnopqrstuvwxyz")
	word = s[:len(s)-len(value)]
	// A dash that was pasted from a text may be longer than a minus.
	behind := strings.TrimLeftFunc(value, func(r rune) bool { return strings.ContainsRune("_=.:/ −", r) || unicode.Is(unicode.Pd, r) })
	return word, value[:len(value)-len(behind)], behind
}

// fits tells whether a value can be meant for a key. A name must be marked off,
// or "regional" would be a region.
func fits(number bool, joint, value string) bool {
	if number {
		return strings.Trim(value, "0123456789") == ""
	}
	return joint != "" && ValidName(value) == nil
}

// many is more slips than any word is forgiven.
const many = 9

// slipsOf counts the slips of the pen between a word and a key; many, if it is
// rather a word of its own.
func slipsOf(word, key string, number bool) int {
	if word == key {
		return 0
	}
	swapped := len(word) == len(key) && word[0] == key[1] && word[1] == key[0]
	if word[0] != key[0] && !swapped {
		return many // height-2, device-a, one-b
	}
	if word == key+"s" && !number {
		return many // services-a
	}
	short := len(key) <= 4 // near to many words, so it must at least have the same letters
	if short && (strings.Trim(word, key) != "" || len(word) < len(key) && !number) {
		return many // post-80, ports-80, zoe-a
	}
	slips, most := EditDistance(word, key), 1
	if (number && !short) || (!short && sorted(word) == sorted(key)) {
		most = 2
	}
	if slips > most {
		return many
	}
	return slips
}

// meant is the key that was probably meant by an unknown one, where only our
// keys belong, in a grant or an attribute. It is empty if none is near.
func (g grammar) meant(unknown string) string {
	unknown = strings.ToLower(unknown)
	best, least := "", 3
	for _, key := range slices.Sorted(maps.Keys(g.rows)) {
		if slips := EditDistance(unknown, key); slips < least && slips <= len(key)/3 {
			best, least = key, slips
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

// EditDistance counts the slips of the pen between a and b: letters that were added,
// left out, changed, or exchanged with their neighbour. Where the lengths alone
// tell that it is more than two, it answers 9.
// See https://en.wikipedia.org/wiki/Damerau–Levenshtein_distance.
func EditDistance(a, b string) int {
	if d := len(a) - len(b); d > 2 || d < -2 {
		return many
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
