package policy

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// pathOf is a rule's path without a slash at its end and in one spelling: what may
// stand for itself is decoded, the rest is %XX in upper case.
func pathOf(written string) (string, error) {
	const form = "must begin with / and hold visible ASCII without ?, # and \\: encode what else is wanted as %XX"
	written = strings.TrimRight(written, "/")
	if written == "" {
		return "", nil
	}
	if written[0] != '/' || !visible(written) || strings.ContainsAny(written, `?#\`) {
		return "", errors.New(form)
	}
	var out strings.Builder
	for i := 0; i < len(written); i++ {
		c := written[i]
		if c != '%' {
			out.WriteByte(c)
			continue
		}
		if len(written) < i+3 {
			return "", errors.New("must have two hexadecimal digits after each %")
		}
		n, err := strconv.ParseUint(written[i+1:i+3], 16, 8)
		if err != nil {
			return "", errors.New("must have two hexadecimal digits after each %")
		}
		i += 2
		switch c = byte(n); {
		case c == 0:
			return "", errors.New("must not hold %00, which Envoy refuses")
		case c <= ' ' || c >= 0x7f || strings.IndexByte(`/%?#\`, c) >= 0:
			fmt.Fprintf(&out, "%%%02X", c)
		default:
			out.WriteByte(c)
		}
	}
	path := out.String()
	for _, segment := range strings.Split(path, "/")[1:] {
		if segment == "" || segment == "." || segment == ".." {
			return "", errors.New("must have no empty segment, . or ..: requests are compared without them")
		}
	}
	if _, size := PathPattern(path); size > maxPatternSize {
		return "", errors.New("is too long to be compared in each spelling: Envoy has room for about 80 characters, and a slash takes that of six")
	}
	return path, nil
}

// maxPatternSize is the largest regular expression that Envoy takes, in
// instructions of its engine, unless its runtime says otherwise.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/type/matcher/v3/regex.proto
const maxPatternSize = 100

const (
	// A run of slashes, and one.
	slashesPattern = `(?:/|%2[Ff])+`
	slashPattern   = `(?:/|%2[Ff])`
)

// PathPattern is the regular expression for a path of [pathOf] and all below it, as
// requests come after [xds.normalizePaths], and no less than its size. The size of each
// part was measured with Envoy 1.40.
func PathPattern(path string) (pattern string, size int) {
	var out strings.Builder
	size = 4
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c == '/':
			out.WriteString(slashesPattern)
			size += 6
		case c == '%':
			out.WriteString("%" + hexPattern(path[i+1]) + hexPattern(path[i+2]))
			size += 3
			i += 2
		case isUnreserved(c):
			out.WriteString(regexp.QuoteMeta(string(c)))
			size++
		default: // servers decode it, and Envoy does not
			encoded := fmt.Sprintf("%02X", c)
			out.WriteString("(?:" + regexp.QuoteMeta(string(c)) + "|%" + hexPattern(encoded[0]) + hexPattern(encoded[1]) + ")")
			size += 4
		}
	}
	out.WriteString("(?:" + slashPattern + ".*)?")
	return out.String(), size + 8
}

func hexPattern(digit byte) string {
	if digit >= 'A' {
		return "[" + string(digit) + strings.ToLower(string(digit)) + "]"
	}
	return string(digit)
}

// isUnreserved tells whether c means the same with and without encoding, by RFC
// 3986, section 2.3.
func isUnreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0
}
