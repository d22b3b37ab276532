package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tailxds/tailxds/internal/topology"
)

// maxNamed is how many names an error lists.
const maxNamed = 12

// nearest is the known name that is at most two typos away, or that
// begins with the given name; empty if there is none.
func nearest(name string, known []string) string {
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

// didYouMean asks whether the nearest known name was meant; it is empty if no
// name is near.
func didYouMean(name string, known []string) string {
	if near := nearest(name, known); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return ""
}

// unknownName is the error for a name of something, such as "service", that is
// not among the known ones. It suggests the nearest, or lists them.
func unknownName(what, name string, known []string) error {
	known = slices.Compact(slices.Sorted(slices.Values(known)))
	text := fmt.Sprintf("there is no %s %s", what, quoted(name))
	if near := didYouMean(name, known); near != "" {
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

// maxQuoted is how many characters of a wrong value an error repeats.
const maxQuoted = 100

// quoted is a value in quotes, cut where it is too long to read.
func quoted(value string) string {
	if r := []rune(value); len(r) > maxQuoted {
		value = string(r[:maxQuoted]) + "…"
	}
	return strconv.Quote(value)
}

// oneOf lists choices: "table, json or yaml".
func oneOf(choices []string) string {
	if len(choices) < 2 {
		return strings.Join(choices, "")
	}
	last := len(choices) - 1
	return strings.Join(choices[:last], ", ") + " or " + choices[last]
}
