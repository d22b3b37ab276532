package envoy

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	headertometadata "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_to_metadata/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxy "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/tailxds/tailxds/internal/policy"
)

// logMetadata is the name of the filter that says which requests are logged, and of the
// metadata in which it says so.
const logMetadata = "tailxds.access_log"

// connectionsOf is the name of a tcp service's listener, and of the filter that hands
// its connections on.
func connectionsOf(service string) string { return "tcp-" + service }

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
		made, err := namedExtension(connectionsOf(name), proxy)
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
		IdleTimeout:        protoDuration(p.StreamIdleTimeout), // 0 is said, too: Envoy has an hour unless told
		AccessLog:          log,
	}
	if p.HashOn.Source {
		proxy.HashPolicy = []*typev3.HashPolicy{{PolicySpecifier: &typev3.HashPolicy_SourceIp_{SourceIp: &typev3.HashPolicy_SourceIp{}}}}
	}
	return proxy, nil
}
