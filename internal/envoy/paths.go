package envoy

import (
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
