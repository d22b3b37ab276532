package xds

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/wrapperspb"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// A path has many spellings that servers take for the same: /x/../cart, //cart,
// /%63art. A rule for /cart must match all of them, or it decides about none.
//
// Envoy resolves dot segments and decodes letters, digits and -._~ before it
// routes, and forwards the result: no server and no client means anything by the
// difference. It leaves slashes as they come, for servers do mean something by // and
// %2F (object stores, GitLab, registries); rules match those spellings instead.
// docs/adr/025-paths.md says why.
func normalizePaths(manager *hcm.HttpConnectionManager) {
	manager.NormalizePath = wrapperspb.Bool(true)
	manager.MergeSlashes = false
	manager.PathWithEscapedSlashesAction = hcm.HttpConnectionManager_KEEP_UNCHANGED
}

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
	if _, size := pathPattern(path); size > maxPatternSize {
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

// pathPattern is the regular expression for a path of [pathOf] and all below it, as
// requests come after [normalizePaths], and no less than its size. The size of each
// part was measured with Envoy 1.40.
func pathPattern(path string) (pattern string, size int) {
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

// hiddenSegment is a dot segment between slashes of which one is encoded. Envoy does
// not resolve it, and some servers do.
const hiddenSegment = `.*(?:/|%2[Ff]|%5[Cc])(?:\.|%2[Ee]){1,2}(?:(?:/|%2[Ff]|%5[Cc]).*)?`

// refuseHidden answers 400 to paths of which no rule can tell where they lead.
func refuseHidden(service string) *route.Route {
	match := &route.RouteMatch{PathSpecifier: pathMatching(hiddenSegment)}
	return answer(service+"-hidden-segment", match, 400, "the path has a . or .. beside an encoded slash")
}

func pathMatching(pattern string) *route.RouteMatch_SafeRegex {
	return &route.RouteMatch_SafeRegex{SafeRegex: &matcher.RegexMatcher{Regex: pattern}}
}

// answer is a route that Envoy answers by itself.
func answer(name string, match *route.RouteMatch, status uint32, why string) *route.Route {
	return &route.Route{Name: name, Match: match, Action: &route.Route_DirectResponse{DirectResponse: &route.DirectResponseAction{
		Status: status, Body: &core.DataSource{Specifier: &core.DataSource_InlineString{InlineString: why + "\n"}},
	}}}
}
