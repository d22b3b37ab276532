package envoy

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	upstreamhttp "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/tailxds/tailxds/internal/policy"
)

// What Envoy takes of one request or response. Its own bounds are 100 header
// fields, 60 KiB of a request's headers and 80 KiB of a response's: less than
// servers and browsers send. A client's memory in Envoy stays bounded.
const (
	maxHeaderFields = 1000
	maxHeadersKiB   = 128
)

// setDownstreamHTTP has the ingress pass on what a plain reverse proxy passes on. defaultHost
// stands in for the header Host of an HTTP/1.0 request without one.
func setDownstreamHTTP(manager *hcm.HttpConnectionManager, defaultHost string) {
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

// upstreamHTTPOptions are the bounds of what servers answer.
func upstreamHTTPOptions() *core.HttpProtocolOptions {
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

// unacknowledgedFor is how long what Envoy sends to a server may stay unacknowledged
// by the server's kernel, and how long a silent connection may fail to answer probes,
// until the connection counts as lost. Its requests then fail, and those that are safe
// to repeat go to another server. It must be longer than a server may pause: a kernel
// whose application reads nothing closes its window, and what waits for that window
// counts as unacknowledged.
const unacknowledgedFor = 10 * time.Second

// closeUnacknowledged sets TCP_USER_TIMEOUT on connections to servers, which Linux knows
// and Envoy has no name for. It bounds new connections, too, so it is no shorter than
// connect_timeout. https://www.man7.org/linux/man-pages/man7/tcp.7.html
func closeUnacknowledged(p policy.Service) *core.BindConfig {
	const ipprotoTCP, tcpUserTimeout = 6, 18
	return &core.BindConfig{SocketOptions: []*core.SocketOption{{
		Description: "TCP_USER_TIMEOUT",
		Level:       ipprotoTCP, Name: tcpUserTimeout,
		Value: &core.SocketOption_IntValue{IntValue: max(unacknowledgedFor, time.Duration(p.ConnectTimeout)).Milliseconds()},
		State: core.SocketOption_STATE_PREBIND,
	}}}
}

// keepaliveProbes probes connections to servers on which nothing moves. The last probe is
// sent after [unacknowledgedFor], which is when the kernel gives the connection up:
// after 4, 6, 8 and 10 s.
func keepaliveProbes() *cluster.UpstreamConnectionOptions {
	return &cluster.UpstreamConnectionOptions{TcpKeepalive: &core.TcpKeepalive{
		KeepaliveTime: wrapperspb.UInt32(4), KeepaliveInterval: wrapperspb.UInt32(2), KeepaliveProbes: wrapperspb.UInt32(3),
	}}
}

// upstreamProtocol is what Envoy speaks to the servers. There are no pings of HTTP/2:
// gRPC servers end connections that send more than one in five minutes of silence
// (too_many_pings), and the kernel finds out as soon.
// https://github.com/grpc/proposal/blob/master/A8-client-side-keepalive.md
func upstreamProtocol(p policy.Service) (map[string]*anypb.Any, error) {
	if p.Protocol == policy.TCP {
		return nil, nil // what the client speaks
	}
	options := &upstreamhttp.HttpProtocolOptions_ExplicitHttpConfig{
		ProtocolConfig: &upstreamhttp.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{HttpProtocolOptions: http1()},
	}
	if p.Protocol == policy.HTTP2 || p.Protocol == policy.GRPC {
		options.ProtocolConfig = &upstreamhttp.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: http2()}
	}
	common := upstreamHTTPOptions()
	common.IdleTimeout = protoDuration(p.IdleTimeout) // 0 is said, too: the default of Envoy is an hour
	packed, err := anypb.New(&upstreamhttp.HttpProtocolOptions{
		CommonHttpProtocolOptions: common,
		UpstreamProtocolOptions:   &upstreamhttp.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: options},
	})
	if err != nil {
		return nil, fmt.Errorf("pack upstream protocol options: %w", err)
	}
	return map[string]*anypb.Any{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": packed}, nil
}
