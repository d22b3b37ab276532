package envoy

import (
	"google.golang.org/protobuf/types/known/wrapperspb"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// What Envoy takes of one request or response. Its own bounds are 100 header
// fields, 60 KiB of a request's headers and 80 KiB of a response's: less than
// servers and browsers send. A client's memory in Envoy stays bounded.
const (
	maxHeaderFields = 1000
	maxHeadersKiB   = 128
)

// takeHTTP has the ingress pass on what a plain reverse proxy passes on. defaultHost
// stands in for the header Host of an HTTP/1.0 request without one.
func takeHTTP(manager *hcm.HttpConnectionManager, defaultHost string) {
	manager.CommonHttpProtocolOptions = &core.HttpProtocolOptions{MaxHeadersCount: wrapperspb.UInt32(maxHeaderFields)}
	manager.MaxRequestHeadersKb = wrapperspb.UInt32(maxHeadersKiB)
	// Older nginx and ab speak HTTP/1.0.
	manager.HttpProtocolOptions = http1()
	manager.HttpProtocolOptions.AcceptHttp_10 = true
	manager.HttpProtocolOptions.DefaultHostForHttp_10 = defaultHost
	// Apache HttpClient 5.4 and newer offer TLS in each request. Envoy answers 403 to
	// an upgrade that it does not know.
	manager.HttpProtocolOptions.IgnoreHttp_11Upgrade = []*matcher.StringMatcher{{
		MatchPattern: &matcher.StringMatcher_Prefix{Prefix: "TLS/"}, IgnoreCase: true,
	}}
	manager.Http2ProtocolOptions = http2()
	// shop.example.com. is the same host as shop.example.com.
	manager.StripTrailingHostDot = true
	// The application's header Server stays.
	manager.ServerHeaderTransformation = hcm.HttpConnectionManager_PASS_THROUGH
}

// sendHTTP are the bounds of what servers answer.
func sendHTTP() *core.HttpProtocolOptions {
	return &core.HttpProtocolOptions{
		MaxHeadersCount:      wrapperspb.UInt32(maxHeaderFields),
		MaxResponseHeadersKb: wrapperspb.UInt32(maxHeadersKiB),
	}
}

// http2 takes one header as long as all together may be.
func http2() *core.Http2ProtocolOptions {
	return &core.Http2ProtocolOptions{MaxHeaderFieldSizeKb: wrapperspb.UInt32(maxHeadersKiB)}
}

// http1 passes trailers on.
func http1() *core.Http1ProtocolOptions { return &core.Http1ProtocolOptions{EnableTrailers: true} }
