// Package input checks what people type, and says what they may have meant.
package input

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/tailxds/tailxds/internal/topology"
)

// maxNamed is how many names an error lists.
const maxNamed = 12

// Nearest is the known name that is at most two typos away, or that
// begins with the given name; empty if there is none.
func Nearest(name string, known []string) string {
	best, least := "", 3
	if len(name) < 5 {
		least = 2 // two typos make any short name of any other
	}
	for _, k := range known {
		if typos := topology.EditDistance(strings.ToLower(name), strings.ToLower(k)); typos < least && typos < len(k) {
			best, least = k, typos
		}
	}
	if best != "" || name == "" {
		return best
	}
	for _, k := range known {
		if strings.HasPrefix(strings.ToLower(k), strings.ToLower(name)) {
			return k
		}
	}
	return ""
}

// DidYouMean asks whether the nearest known name was meant; it is empty if no
// name is near.
func DidYouMean(name string, known []string) string {
	if near := Nearest(name, known); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return ""
}

// UnknownName is the error for a name of something, such as "service", that is
// not among the known ones. It suggests the nearest, or lists them.
func UnknownName(what, name string, known []string) error {
	known = slices.Compact(slices.Sorted(slices.Values(known)))
	text := fmt.Sprintf("there is no %s %s", what, Quoted(name))
	if near := DidYouMean(name, known); near != "" {
		return fmt.Errorf("%s: %s", text, near)
	}
	if len(known) == 0 {
		return fmt.Errorf("%s: there are none yet", text)
	}
	rest := ""
	if more := len(known) - maxNamed; more > 0 {
		rest = fmt.Sprintf(" and %d more", more)
		known = known[:maxNamed]
	}
	return fmt.Errorf("%s: there are %s%s", text, strings.Join(known, ", "), rest)
}

// MaxQuoted is how many characters of a wrong value an error repeats.
const MaxQuoted = 100

// Quoted is a value in quotes, cut where it is too long to read.
func Quoted(value string) string {
	if r := []rune(value); len(r) > MaxQuoted {
		value = string(r[:MaxQuoted]) + "…"
	}
	return strconv.Quote(value)
}

// OneOf lists choices: "table, json or yaml".
func OneOf(choices []string) string {
	if len(choices) < 2 {
		return strings.Join(choices, "")
	}
	last := len(choices) - 1
	return strings.Join(choices[:last], ", ") + " or " + choices[last]
}

// Printable is text from elsewhere as a terminal may show it: on one line, and
// without the characters that move its cursor or turn its letters around.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsPrint(r):
			return r
		case unicode.IsSpace(r):
			return ' '
		default:
			return unicode.ReplacementChar
		}
	}, s)
}
