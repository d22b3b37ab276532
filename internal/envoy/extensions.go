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
	headertometadata "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_to_metadata/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxy "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/tailxds/tailxds/internal/policy"
)

// logMetadata is the name of the filter that says which requests are logged, and of the
// metadata in which it says so.
const logMetadata = "tailxds.access_log"

// connectionExtension is the name of a tcp service's listener, and of the filter that hands
// its connections on.
func connectionExtension(service string) string { return "tcp-" + service }

func typeURL(m proto.Message) string {
	return "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName())
}

// buildExtensions are the filters that listeners name and do not hold, so that they
// can change while the listeners' connections stay open. A request asks them as they are
// when it comes, a connection of a tcp service as they are when it is opened.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/overview/extension
func buildExtensions(in sharedInput) ([]proto.Message, error) {
	choice, err := namedExtension(logMetadata, chooseLog(in.policy.Ingress.AccessLog))
	if err != nil {
		return nil, err
	}
	all := []proto.Message{choice}
	for _, name := range in.services {
		service := in.policy.For(name)
		if service.Protocol != policy.TCP {
			continue
		}
		proxy, err := connectionProxy(in.policy.Ingress, name, service)
		if err != nil {
			return nil, err
		}
		made, err := namedExtension(connectionExtension(name), proxy)
		if err != nil {
			return nil, err
		}
		all = append(all, made)
	}
	return all, nil
}

func namedExtension(name string, config proto.Message) (*core.TypedExtensionConfig, error) {
	packed, err := anypb.New(config)
	if err != nil {
		return nil, fmt.Errorf("pack the extension %s: %w", name, err)
	}
	return &core.TypedExtensionConfig{Name: name, TypedConfig: packed}, nil
}

// logChoice is the filter by which a listener asks which requests are logged. Until it is
// told, none is: requests must not fail for a log.
func logChoice() (*hcm.HttpFilter, error) {
	none, err := anypb.New(chooseLog(policy.LogNone))
	if err != nil {
		return nil, fmt.Errorf("pack the choice of what is logged: %w", err)
	}
	return &hcm.HttpFilter{Name: logMetadata, ConfigType: &hcm.HttpFilter_ConfigDiscovery{ConfigDiscovery: &core.ExtensionConfigSource{
		ConfigSource: fromADS(), TypeUrls: []string{typeURL(&headertometadata.Config{})}, DefaultConfig: none,
	}}}, nil
}

// chooseLog leaves what the policy wants of the log in each request's metadata, by two
// headers that none lacks. The answer's is for requests that Envoy answers itself before
// it asks filters, such as those that it can't read.
func chooseLog(log string) *headertometadata.Config {
	if log == policy.LogNone {
		return &headertometadata.Config{}
	}
	rule := func(header string) []*headertometadata.Config_Rule {
		return []*headertometadata.Config_Rule{{Header: header, OnHeaderPresent: &headertometadata.Config_KeyValuePair{
			MetadataNamespace: logMetadata, Key: logMetadata, Value: log,
		}}}
	}
	return &headertometadata.Config{RequestRules: rule(":method"), ResponseRules: rule(":status")}
}

// requestID gives a request an ID in the log and at the server, if there is a log and
// it came without one.
func requestID(i policy.Ingress) []*core.HeaderValueOption {
	if i.AccessLog == policy.LogNone {
		return nil
	}
	return []*core.HeaderValueOption{{
		Header:       &core.HeaderValue{Key: "x-request-id", Value: "%UNIQUE_ID%"},
		AppendAction: core.HeaderValueOption_ADD_IF_ABSENT,
	}}
}

// connectionProxy hands connections on as they are. One that no server has taken
// yet is tried on another.
func connectionProxy(i policy.Ingress, service string, p policy.Service) (*tcpproxy.TcpProxy, error) {
	log, err := connectionLog(i)
	if err != nil {
		return nil, err
	}
	proxy := &tcpproxy.TcpProxy{
		StatPrefix:         service,
		ClusterSpecifier:   &tcpproxy.TcpProxy_Cluster{Cluster: service},
		MaxConnectAttempts: wrapperspb.UInt32(p.Retries + 1),
		IdleTimeout:        protoDuration(p.StreamIdleTimeout), // 0 is said, too: the default of Envoy is an hour
		AccessLog:          log,
	}
	if p.HashOn.Source {
		proxy.HashPolicy = []*typev3.HashPolicy{{PolicySpecifier: &typev3.HashPolicy_SourceIp_{SourceIp: &typev3.HashPolicy_SourceIp{}}}}
	}
	return proxy, nil
}

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

// stdoutLog writes lines of JSON on Envoy's standard output, of what passes a filter.
func stdoutLog(filter *accesslog.AccessLogFilter) ([]*accesslog.AccessLog, error) {
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
		return stdoutLog(nil)
	case policy.LogErrors:
		return stdoutLog(failedFilter())
	default:
		return nil, nil
	}
}

// requestLog is the log of requests. It is the same whatever the policy wants: which
// requests it writes, a filter says that can be changed while connections are open. It
// leaves its name in each request's metadata: see [logChoice].
func requestLog() ([]*accesslog.AccessLog, error) {
	chosen := func(name string) *accesslog.AccessLogFilter {
		return &accesslog.AccessLogFilter{FilterSpecifier: &accesslog.AccessLogFilter_MetadataFilter{MetadataFilter: &accesslog.MetadataFilter{
			Matcher: &matcher.MetadataMatcher{
				Filter: logMetadata,
				Path:   []*matcher.MetadataMatcher_PathSegment{{Segment: &matcher.MetadataMatcher_PathSegment_Key{Key: logMetadata}}},
				Value: &matcher.ValueMatcher{MatchPattern: &matcher.ValueMatcher_StringMatch{StringMatch: &matcher.StringMatcher{
					MatchPattern: &matcher.StringMatcher_Exact{Exact: name},
				}}},
			},
			MatchIfKeyNotFound: wrapperspb.Bool(false),
		}}}
	}
	return stdoutLog(either(chosen(policy.LogAll), both(chosen(policy.LogErrors), failedFilter())))
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

// failedFilter lets what failed through. An empty flag filter means any flag.
func failedFilter() *accesslog.AccessLogFilter {
	answered5xx := &accesslog.AccessLogFilter{FilterSpecifier: &accesslog.AccessLogFilter_StatusCodeFilter{StatusCodeFilter: &accesslog.StatusCodeFilter{
		Comparison: &accesslog.ComparisonFilter{
			Op: accesslog.ComparisonFilter_GE,
			// A runtime key is required, which is never set.
			Value: &core.RuntimeUInt32{DefaultValue: 500, RuntimeKey: "tailxds.access_log.errors_from"},
		},
	}}}
	flagged := &accesslog.AccessLogFilter{FilterSpecifier: &accesslog.AccessLogFilter_ResponseFlagFilter{ResponseFlagFilter: &accesslog.ResponseFlagFilter{}}}
	return either(answered5xx, flagged)
}
