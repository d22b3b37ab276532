package envoy

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	router "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxy "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"

	"github.com/tailxds/tailxds/internal/policy"
)

// IngressIPv6 is the listener on IPv6. It is one of its own, so that a host that has
// no IPv6 refuses this one alone.
const IngressIPv6 = "ingress-ipv6"

// buildListeners take requests on all addresses of the host, from the sources
// that the policy lets in, and ask the routes where they go.
//
// A listener's change closes connections: all of a filter chain that changes or goes,
// within Envoy's drain time. So what is edited while streams run is not in here: routes
// come by RDS, what is logged and how connections of tcp services are handed on by ECDS
// ([buildExtensions]), and each network of [policy.Ingress.Allow] has a filter chain of
// its own.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/intro/arch_overview/listeners/lds
func buildListeners(in sharedInput) ([]proto.Message, error) {
	p := in.policy
	manager, err := connectionManager(p.Ingress.TrustedHops, in.defaultService)
	if err != nil {
		return nil, err
	}
	all, err := buildListenersOn(p.Ingress, IngressListener, p.Ingress.Port, &listener.Filter{
		Name: "envoy.filters.network.http_connection_manager", ConfigType: &listener.Filter_TypedConfig{TypedConfig: manager},
	})
	if err != nil {
		return nil, err
	}
	for _, name := range in.services {
		service := p.For(name)
		if service.Protocol != policy.TCP {
			continue
		}
		// Without its configuration, Envoy closes each connection.
		more, err := buildListenersOn(p.Ingress, connectionExtension(name), service.Listen, &listener.Filter{
			Name: connectionExtension(name), ConfigType: &listener.Filter_ConfigDiscovery{ConfigDiscovery: &core.ExtensionConfigSource{
				ConfigSource: fromADS(), TypeUrls: []string{typeURL(&tcpproxy.TcpProxy{})},
			}},
		})
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	return all, nil
}

// buildListenersOn take connections on a port from those who are let in, one for each
// family of addresses, and hand them to a filter.
func buildListenersOn(i policy.Ingress, name string, port uint16, filter *listener.Filter) ([]proto.Message, error) {
	v4, v6, err := allowedRanges(i)
	if err != nil {
		return nil, err
	}
	var all []proto.Message
	add := func(name, address string, allow []*core.CidrRange) {
		if len(allow) == 0 {
			return // no caller could come in; and a chain without ranges lets all in
		}
		l := &listener.Listener{
			Name:             name,
			Address:          socketAddress(address, port),
			TrafficDirection: core.TrafficDirection_INBOUND,
			SocketOptions:    probeClients(),
		}
		// A connection that matches no chain is closed at once. Each network has its own
		// chain, since Envoy keeps the connections of those that an update leaves as they
		// are, and drains the others': an edit concerns whom it names.
		for _, network := range allow {
			l.FilterChains = append(l.FilterChains, &listener.FilterChain{
				Name:             fmt.Sprintf("%s/%d", network.GetAddressPrefix(), network.GetPrefixLen().GetValue()),
				FilterChainMatch: &listener.FilterChainMatch{DirectSourcePrefixRanges: []*core.CidrRange{network}},
				Filters:          []*listener.Filter{filter},
			})
		}
		all = append(all, l)
	}
	add(name, "0.0.0.0", v4)
	add(name+"-ipv6", "::", v6)
	return all, nil
}

// probeClients has the kernel find out within five minutes that a client has gone
// silently, since no timeout of ours ends its streams. Names and numbers are
// Linux's.
func probeClients() []*core.SocketOption {
	const (
		solSocket, soKeepalive                   = 1, 9
		ipprotoTCP, keepidle, keepintvl, keepcnt = 6, 4, 5, 6
	)
	option := func(description string, level, name, value int64) *core.SocketOption {
		return &core.SocketOption{
			Description: description, Level: level, Name: name,
			Value: &core.SocketOption_IntValue{IntValue: value}, State: core.SocketOption_STATE_PREBIND,
		}
	}
	return []*core.SocketOption{
		option("SO_KEEPALIVE", solSocket, soKeepalive, 1),
		option("TCP_KEEPIDLE", ipprotoTCP, keepidle, 120),
		option("TCP_KEEPINTVL", ipprotoTCP, keepintvl, 30),
		option("TCP_KEEPCNT", ipprotoTCP, keepcnt, 6),
	}
}

// unrouted bounds the time in which nothing of a request comes before it is known to
// which service it goes. From then on the service's stream_idle_timeout holds.
const unrouted = 5 * time.Minute

func connectionManager(trustedHops uint32, defaultHost string) (*anypb.Any, error) {
	// Neither callers nor servers are told how the way between them is built, and for
	// how long it took Envoy: its access log and its metrics tell that. Each request
	// is one or two percent cheaper without those headers.
	routing, err := anypb.New(&router.Router{SuppressEnvoyHeaders: true})
	if err != nil {
		return nil, fmt.Errorf("pack router: %w", err)
	}
	choice, err := logChoice()
	if err != nil {
		return nil, err
	}
	log, err := requestLog()
	if err != nil {
		return nil, err
	}
	manager := &hcm.HttpConnectionManager{
		StatPrefix: IngressListener,
		RouteSpecifier: &hcm.HttpConnectionManager_Rds{Rds: &hcm.Rds{
			RouteConfigName: IngressListener, ConfigSource: fromADS(),
		}},
		HttpFilters: []*hcm.HttpFilter{choice, {
			Name:       "envoy.filters.http.router",
			ConfigType: &hcm.HttpFilter_TypedConfig{TypedConfig: routing},
		}},
		// The client is who the tailnet says: its address goes into
		// x-forwarded-for, and Envoy's own headers are not taken from it. Of the
		// header only what trusted proxies have written is believed.
		UseRemoteAddress:  wrapperspb.Bool(true),
		XffNumTrustedHops: trustedHops,
		AccessLog:         log,
		// A request keeps the x-request-id that it came with. Who keeps a log looks
		// there for one of each request; routes then add it, as making one is a percent
		// of the work.
		GenerateRequestId:         wrapperspb.Bool(false),
		PreserveExternalRequestId: true,
		StreamIdleTimeout:         durationpb.New(unrouted),
		UpgradeConfigs:            []*hcm.HttpConnectionManager_UpgradeConfig{{UpgradeType: "websocket"}},
	}
	setDownstreamHTTP(manager, defaultHost)
	normalizePaths(manager)
	packed, err := anypb.New(manager)
	if err != nil {
		return nil, fmt.Errorf("pack connection manager: %w", err)
	}
	return packed, nil
}

// allowedRanges are the sources that are let in, by family, each once.
func allowedRanges(i policy.Ingress) (v4, v6 []*core.CidrRange, err error) {
	seen := make(map[netip.Prefix]bool)
	for _, source := range i.Allow {
		prefixes, err := policy.SourceRanges(source)
		if err != nil {
			return nil, nil, err
		}
		for _, p := range prefixes {
			if seen[p] {
				continue
			}
			seen[p] = true
			r := &core.CidrRange{AddressPrefix: p.Addr().String(), PrefixLen: wrapperspb.UInt32(uint32(p.Bits()))}
			if p.Addr().Is4() {
				v4 = append(v4, r)
			} else {
				v6 = append(v6, r)
			}
		}
	}
	if len(seen) == 0 {
		return nil, nil, errors.New("the ingress policy lets nobody in")
	}
	return v4, v6, nil
}
