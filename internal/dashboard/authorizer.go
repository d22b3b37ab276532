package dashboard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// Capability is the app capability by which the tailnet's policy says who may
// see the page, and who may operate: [{"role": "view"}] or [{"role": "operate"}].
const Capability = "tailxds.dev/cap/admin"

// Authorizer decides who may see the page.
type Authorizer struct {
	// Identify returns who makes a request, and their current role. An error says why
	// that is unknown: [ErrUnknownPeer] if it can never be known.
	Identify func(*http.Request) (Viewer, error)
	// AllowsHost reports whether the page answers under a host name, in lower case and
	// without port. Another site could point its own name here (DNS rebinding) and
	// read the page.
	AllowsHost func(ctx context.Context, host string) bool
}

// ErrUnknownPeer is the error of a request from an address that no device has.
var ErrUnknownPeer = errors.New("the tailnet does not know this address")

type viewerKey struct{}

// viewerOf returns who makes an admitted request.
func viewerOf(ctx context.Context) Viewer {
	v, _ := ctx.Value(viewerKey{}).(Viewer)
	return v
}

// Admit admits viewers who ask under a name of ours, and not from another site's
// page. Over plain HTTP browsers send no Sec-Fetch-Site, so Origin and Host must
// show it. All other handlers for viewers go through it, too.
func (a Authorizer) Admit(next http.Handler) http.Handler {
	next = http.NewCrossOriginProtection().Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !a.AllowsHost(r.Context(), HostName(r.Host)) {
			http.Error(w, "the page does not answer under this name", http.StatusMisdirectedRequest)
			return
		}
		if origin := r.Header.Get("Origin"); origin != "" && !sameHost(origin, r.Host) {
			http.Error(w, "not from a page of another site", http.StatusForbidden)
			return
		}
		v, err := a.Identify(r)
		switch {
		case errors.Is(err, ErrUnknownPeer):
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		case err != nil:
			http.Error(w, "nobody can tell who asks: "+err.Error(), http.StatusServiceUnavailable)
			return
		case v.Role != RoleView && v.Role != RoleOperate:
			http.Error(w, fmt.Sprintf(`the tailnet's policy must grant %s {"role": "view"} or {"role": "operate"} from %s to this control plane: see docs/page.md`, Capability, v.Name), http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), viewerKey{}, v)))
	})
}

// AdmitOperators is like [Authorizer.Admit], for operators only.
func (a Authorizer) AdmitOperators(next http.Handler) http.Handler {
	return a.Admit(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if viewerOf(r.Context()).Role != RoleOperate {
			http.Error(w, errNotOperator, http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	}))
}

const errNotOperator = "you may look and not operate: the tailnet's policy grants " + Capability + ` with {"role": "operate"}`

// sameHost reports whether an origin is the requested host.
func sameHost(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, host)
}

// HostName returns a host without port, brackets and final dot, in lower case.
func HostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if a, err := netip.ParseAddr(host); err == nil {
		return a.String()
	}
	return host
}
