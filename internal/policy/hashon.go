package policy

import (
	"github.com/tailxds/tailxds/internal/yamldoc"
)

// HashOn is what requests have in common that go to the same server: one of a
// header, a cookie, or where they come from. Its zero value is nothing.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/config/route/v3/route_components.proto#config-route-v3-routeaction-hashpolicy
type HashOn struct {
	// Header and Cookie are their names. A cookie that a client lacks is given to
	// it, for as long as its browser runs.
	Header, Cookie string
	// Source is the client's address.
	Source bool
}

// hashKey is how a header or a cookie is written.
type hashKey struct {
	Header string `yaml:"header"`
	Cookie string `yaml:"cookie"`
}

// String is what belongs together: "header x-user"; empty if nothing does.
func (h HashOn) String() string {
	switch {
	case h.Header != "":
		return "header " + h.Header
	case h.Cookie != "":
		return "cookie " + h.Cookie
	case h.Source:
		return "source"
	default:
		return ""
	}
}

// ReadSection reads {header: H}, {cookie: C} or source.
func (h *HashOn) ReadSection(from yamldoc.Section) {
	if from.Scalar() == "source" {
		*h = HashOn{Source: true}
		return
	}
	var key hashKey
	fits := from.Fits(&key)
	name := key.Header + key.Cookie
	if !fits || (key.Header == "") == (key.Cookie == "") || len(name) > 255 || !isToken(name) {
		from.AddError("must be {header: NAME}, {cookie: NAME} or source")
		return
	}
	*h = HashOn{Header: key.Header, Cookie: key.Cookie}
}

// isToken tells whether a text can be the name of a header or a cookie (RFC
// 9110, section 5.6.2).
func isToken(s string) bool {
	for _, r := range s {
		letter := (r >= 'a' && r <= 'z') || (r >= 'A' && r <= 'Z') || (r >= '0' && r <= '9')
		if !letter && r != '-' && r != '_' {
			return false
		}
	}
	return s != ""
}
