package envoy

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	accesslog "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	stream "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/tailxds/tailxds/internal/policy"
)

// logFields are the keys of a line, and where Envoy has their values.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/observability/access_log/usage#format-strings
func logFields() map[string]any {
	return map[string]any{
		"time":            "%START_TIME%",
		"peer":            "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%",
		"client":          "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
		"x_forwarded_for": "%REQ(X-FORWARDED-FOR)%",
		"protocol":        "%PROTOCOL%",
		"method":          "%REQ(:METHOD)%",
		"host":            "%REQ(:AUTHORITY)%",
		"path":            "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
		"request_id":      "%REQ(X-REQUEST-ID)%",
		"user_agent":      "%REQ(USER-AGENT)%",
		"status":          "%RESPONSE_CODE%",
		"details":         "%RESPONSE_CODE_DETAILS%",
		"flags":           "%RESPONSE_FLAGS%",
		"attempts":        "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
		"bytes_received":  "%BYTES_RECEIVED%",
		"bytes_sent":      "%BYTES_SENT%",
		"duration_ms":     "%DURATION%",
		"service":         "%UPSTREAM_CLUSTER%",
		"upstream":        "%UPSTREAM_HOST%",
		"upstream_ms":     "%COMMON_DURATION(US_TX_END:US_RX_BEG:ms)%",
		"upstream_fault":  "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
	}
}

// stdout writes lines of JSON on Envoy's standard output, of what passes a filter.
func stdout(filter *accesslog.AccessLogFilter) ([]*accesslog.AccessLog, error) {
	fields, err := structpb.NewStruct(logFields())
	if err != nil {
		return nil, fmt.Errorf("write down what the access log says: %w", err)
	}
	config := new(anypb.Any)
	// The fields are a map. Written in another order, they would be another listener, and
	// its connections would be closed.
	err = anypb.MarshalFrom(config, &stream.StdoutAccessLog{AccessLogFormat: &stream.StdoutAccessLog_LogFormat{
		LogFormat: &core.SubstitutionFormatString{
			Format:          &core.SubstitutionFormatString_JsonFormat{JsonFormat: fields},
			OmitEmptyValues: true,
		},
	}}, proto.MarshalOptions{Deterministic: true})
	if err != nil {
		return nil, fmt.Errorf("pack the access log: %w", err)
	}
	return []*accesslog.AccessLog{{
		Name: "envoy.access_loggers.stdout", Filter: filter,
		ConfigType: &accesslog.AccessLog_TypedConfig{TypedConfig: config},
	}}, nil
}

// connectionLog is the log of a tcp service.
func connectionLog(i policy.Ingress) ([]*accesslog.AccessLog, error) {
	switch i.AccessLog {
	case policy.LogAll:
		return stdout(nil)
	case policy.LogErrors:
		return stdout(failed())
	default:
		return nil, nil
	}
}

// requestLog is the log of requests. It is the same whatever the policy wants: which
// requests it writes, a filter says that can be changed while connections are open. It
// leaves its word in each request's metadata: see [logChoice].
func requestLog() ([]*accesslog.AccessLog, error) {
	chosen := func(word string) *accesslog.AccessLogFilter {
		return &accesslog.AccessLogFilter{FilterSpecifier: &accesslog.AccessLogFilter_MetadataFilter{MetadataFilter: &accesslog.MetadataFilter{
			Matcher: &matcher.MetadataMatcher{
				Filter: logMetadata,
				Path:   []*matcher.MetadataMatcher_PathSegment{{Segment: &matcher.MetadataMatcher_PathSegment_Key{Key: logMetadata}}},
				Value: &matcher.ValueMatcher{MatchPattern: &matcher.ValueMatcher_StringMatch{StringMatch: &matcher.StringMatcher{
					MatchPattern: &matcher.StringMatcher_Exact{Exact: word},
				}}},
			},
			MatchIfKeyNotFound: wrapperspb.Bool(false),
		}}}
	}
	return stdout(either(chosen(policy.LogAll), both(chosen(policy.LogErrors), failed())))
}

func either(a, b *accesslog.AccessLogFilter) *accesslog.AccessLogFilter {
	return &accesslog.AccessLogFilter{FilterSpecifier: &accesslog.AccessLogFilter_OrFilter{OrFilter: &accesslog.OrFilter{
		Filters: []*accesslog.AccessLogFilter{a, b},
	}}}
}

func both(a, b *accesslog.AccessLogFilter) *accesslog.AccessLogFilter {
	return &accesslog.AccessLogFilter{FilterSpecifier: &accesslog.AccessLogFilter_AndFilter{AndFilter: &accesslog.AndFilter{
		Filters: []*accesslog.AccessLogFilter{a, b},
	}}}
}

// failed lets what failed through. An empty flag filter means any flag.
func failed() *accesslog.AccessLogFilter {
	answered5xx := &accesslog.AccessLogFilter{FilterSpecifier: &accesslog.AccessLogFilter_StatusCodeFilter{StatusCodeFilter: &accesslog.StatusCodeFilter{
		Comparison: &accesslog.ComparisonFilter{
			Op: accesslog.ComparisonFilter_GE,
			// A runtime key is demanded, and nobody sets it.
			Value: &core.RuntimeUInt32{DefaultValue: 500, RuntimeKey: "tailxds.access_log.errors_from"},
		},
	}}}
	flagged := &accesslog.AccessLogFilter{FilterSpecifier: &accesslog.AccessLogFilter_ResponseFlagFilter{ResponseFlagFilter: &accesslog.ResponseFlagFilter{}}}
	return either(answered5xx, flagged)
}
