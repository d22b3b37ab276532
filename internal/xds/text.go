package xds

import (
	"strings"
	"unicode"
)

// maxTextBytes is how much of a text from elsewhere is kept: Envoy's reasons are
// long, but people read them.
const maxTextBytes = 2_000

// sanitize makes a text from elsewhere fit for terminals, logs and metrics. It
// takes out what would move a cursor, colour a screen or turn the direction of
// writing, and bounds its length.
func sanitize(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case r == unicode.ReplacementChar || !unicode.IsPrint(r):
			return '?'
		default:
			return r
		}
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > maxTextBytes {
		s = strings.ToValidUTF8(s[:maxTextBytes], "") + "…"
	}
	return s
}
