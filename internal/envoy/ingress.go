package envoy

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/tailxds/tailxds/internal/policy"
)

// Requests that are safe to repeat are retried also after a server may have
// seen them; the others only while none can have.
const (
	retrySafe     = "connect-failure,refused-stream,reset,gateway-error"
	retryAnything = "connect-failure,refused-stream,reset-before-request"
)

// safeMethods are those that may be repeated, the usual one first.
// https://www.rfc-editor.org/rfc/rfc9110#section-9.2.1
func safeMethods() []string { return []string{"GET", "HEAD", "OPTIONS"} }

// buildRoutes gives every service a virtual host under its name. The default
// service takes what no other claims.
func buildRoutes(in sharedInput) ([]proto.Message, error) {
	config := &route.RouteConfiguration{
		Name: IngressListener,
		// hello:10000 is the same host as hello.
		IgnorePortInHostMatching: true,
		RequestHeadersToAdd:      requestID(in.policy.Ingress),
	}
	domains := domains(in)
	routing, err := newRouting(in)
	if err != nil {
		return nil, err
	}
	for _, name := range in.services {
		config.VirtualHosts = append(config.VirtualHosts, &route.VirtualHost{Name: name, Domains: domains[name], Routes: routing.of(name)})
	}
	return []proto.Message{config}, checkDomains(config)
}

// checkDomains holds the routes to the one rule of Envoy's that its validation
// code does not know: no domain stands twice.
func checkDomains(config *route.RouteConfiguration) error {
	owner := make(map[string]string)
	for _, v := range config.GetVirtualHosts() {
		for _, domain := range v.GetDomains() {
			if first, taken := owner[domain]; taken {
				return fmt.Errorf("the domain %s belongs to both %s and %s", domain, first, v.GetName())
			}
			owner[domain] = v.GetName()
		}
	}
	return nil
}

// servedBy tells a client who answered, if the policy wants it told.
func servedBy(p policy.Service) []*core.HeaderValueOption {
	if !p.ShowEndpoint {
		return nil
	}
	return []*core.HeaderValueOption{{
		Header:       &core.HeaderValue{Key: "x-tailxds-endpoint", Value: "%UPSTREAM_HOST_NAME%"},
		AppendAction: core.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD, // what a server claims counts for nothing
	}}
}
