package policy

import (
	"fmt"
	"net/netip"
)

// SourceRanges are the networks that one word of [Ingress.Allow] stands for.
func SourceRanges(source string) ([]netip.Prefix, error) {
	switch source {
	case FromTailnet:
		return []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("fd7a:115c:a1e0::/48")}, nil
	case FromLoopback:
		return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}, nil
	}
	if a, err := netip.ParseAddr(source); err == nil && a.Zone() == "" && !a.Is4In6() {
		return []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}, nil
	}
	p, err := netip.ParsePrefix(source)
	if err != nil || p.Addr().Is4In6() {
		return nil, fmt.Errorf("%q must be %s, %s, or a network such as 10.0.0.0/8", source, FromTailnet, FromLoopback)
	}
	if p != p.Masked() {
		return nil, fmt.Errorf("%q is no network; did you mean %s?", source, p.Masked())
	}
	return []netip.Prefix{p}, nil
}
