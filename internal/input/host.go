package input

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/tailxds/tailxds/internal/topology"
)

// ValidHost tells whether s is a host name or an IP address.
func ValidHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	return len(s) <= 253 && !slices.ContainsFunc(strings.Split(s, "."), func(label string) bool { return topology.ValidName(label) != nil })
}

// ValidPort tells whether s is a port that can be asked.
func ValidPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}
