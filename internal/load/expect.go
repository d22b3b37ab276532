package load

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Expectation is a share of the answers that ought to come from somebody.
type Expectation struct {
	// Word is one that stands in these answers, such as a region's name.
	Word string
	// Share is theirs of all answers, and Within how far off it may be: percent,
	// and percentage points.
	Share, Within float64
}

// ShareResult is what came of an [Expectation].
type ShareResult struct {
	Word   string  `json:"word"`
	Want   float64 `json:"want"`
	Within float64 `json:"within"`
	Share  float64 `json:"share"`
	OK     bool    `json:"ok"`
}

// ParseExpectation reads "west=33±5", or "west=33+-5" from a keyboard that has
// no ±.
func ParseExpectation(text string) (Expectation, error) {
	wrong := fmt.Errorf("%q is no expectation; write it like west=33±5, in percent of the answers and percentage points", text)
	word, shares, ok := strings.Cut(text, "=")
	if !ok || word == "" || !slices.Equal(words(word), []string{word}) {
		return Expectation{}, wrong
	}
	share, within, ok := strings.Cut(strings.Replace(shares, "+-", "±", 1), "±")
	if !ok {
		return Expectation{}, wrong
	}
	e := Expectation{Word: word}
	for _, number := range []struct {
		text string
		to   *float64
	}{{share, &e.Share}, {within, &e.Within}} {
		var err error
		if *number.to, err = strconv.ParseFloat(number.text, 64); err != nil || !(*number.to >= 0 && *number.to <= 100) {
			return Expectation{}, wrong
		}
	}
	return e, nil
}

// words are what a text is made of: names of hosts and regions stay whole.
func words(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '-' && r != '_'
	})
}

// Check tells how the expectations were met, in their order.
func (r Result) Check(expected []Expectation) []ShareResult {
	all := make([]ShareResult, 0, len(expected))
	for _, e := range expected {
		n := 0
		for text, count := range r.Answers {
			if slices.Contains(words(text), e.Word) {
				n += count
			}
		}
		m := ShareResult{Word: e.Word, Want: e.Share, Within: e.Within}
		if answered := r.Answered(); answered > 0 {
			m.Share = 100 * float64(n) / float64(answered)
			m.OK = math.Abs(m.Share-e.Share) <= e.Within
		}
		all = append(all, m)
	}
	return all
}

// String says what was expected and what came.
func (m ShareResult) String() string {
	return fmt.Sprintf("%s has %.1f%% of the answers, and %g±%g was expected", m.Word, m.Share, m.Want, m.Within)
}
