package xds

import (
	"fmt"

	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	accesslog "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	stream "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
)

// What [IngressPolicy.AccessLog] can be.
const (
	LogNone = "none"
	// LogErrors are requests and connections that failed: answered with 5xx, or
	// cut short, refused or retried in vain, which Envoy says by a flag.
	LogErrors = "errors"
	LogAll    = "all"
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

// accessLog writes lines of JSON on Envoy's standard output, as the policy wants.
func (i IngressPolicy) accessLog() ([]*accesslog.AccessLog, error) {
	if i.AccessLog == LogNone {
		return nil, nil
	}
	fields, err := structpb.NewStruct(logFields())
	if err != nil {
		return nil, fmt.Errorf("write down what the access log says: %w", err)
	}
	config, err := anypb.New(&stream.StdoutAccessLog{AccessLogFormat: &stream.StdoutAccessLog_LogFormat{
		LogFormat: &core.SubstitutionFormatString{
			Format:          &core.SubstitutionFormatString_JsonFormat{JsonFormat: fields},
			OmitEmptyValues: true,
		},
	}})
	if err != nil {
		return nil, fmt.Errorf("pack the access log: %w", err)
	}
	log := &accesslog.AccessLog{Name: "envoy.access_loggers.stdout", ConfigType: &accesslog.AccessLog_TypedConfig{TypedConfig: config}}
	if i.AccessLog == LogErrors {
		log.Filter = failed()
	}
	return []*accesslog.AccessLog{log}, nil
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
	return &accesslog.AccessLogFilter{FilterSpecifier: &accesslog.AccessLogFilter_OrFilter{OrFilter: &accesslog.OrFilter{
		Filters: []*accesslog.AccessLogFilter{answered5xx, flagged},
	}}}
}
