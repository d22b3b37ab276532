package cli

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/tailxds/tailxds/internal/input"
	"github.com/tailxds/tailxds/internal/policy"
	"github.com/tailxds/tailxds/internal/topology"
)

// Check refuses invalid values of serve's flags, and says of each
// what would be right.
func (o serveOptions) check() error {
	c := validator{errs: []error{checkRules(o.Rules)}}
	c.duration("poll-interval", o.PollInterval, 100*time.Millisecond, 24*time.Hour)
	c.duration("hold-for", o.HoldFor, 0, 24*time.Hour)
	c.require("hold-fraction", o.HoldFraction >= 0 && o.HoldFraction <= 1, o.HoldFraction, "a share from 0 to 1, such as 0.5")
	c.require("max-response-bytes", o.MaxResponseBytes >= 1<<10 && o.MaxResponseBytes <= 1<<30, o.MaxResponseBytes,
		"from 1024 to 1073741824 (1 GiB)")
	c.require("port", o.Port > 0, o.Port, "from 1 to 65535")
	c.require("hostname", topology.ValidName(o.Hostname) == nil, o.Hostname, "a name of 1 to 63 letters, digits and inner dashes, without a domain")
	c.require("tailnet", o.Tailnet != "" && !strings.ContainsAny(o.Tailnet, "/ "), o.Tailnet, "the tailnet's name in the API, or - for the credential's own")
	c.url("api-url", o.APIURL)
	c.url("control-url", o.ControlURL)
	if o.Listen != "" {
		c.address("listen", o.Listen)
	}
	c.address("admin", o.Admin)
	for _, h := range o.AdminHosts {
		c.require("admin-host", input.ValidHost(h), h, "a host name without scheme and port, such as tailxds.example.com")
	}
	for _, p := range o.Peers {
		c.require("peer", validPeer(p), p, "a host name on the tailnet, such as tsnet-dynamic-eds-2")
	}
	if o.Listen != "" && len(o.Peers) > 0 {
		c.errs = append(c.errs, fmt.Errorf("%s needs a tailnet, which tells who another control plane is: leave out %s", setting("peer"), setting("listen")))
	}
	for _, t := range o.AdvertiseTags {
		c.tag("advertise-tags", t)
	}
	for _, t := range o.Allow {
		c.tag("allow", t)
	}
	if o.StateStore != "" {
		secret, kube := strings.CutPrefix(o.StateStore, "kube:")
		c.require("state-store", kube && input.ValidHost(secret), o.StateStore, "kube: and the name of a Kubernetes Secret")
	}
	_, err := newLogger(o.LogLevel, o.LogFormat, io.Discard)
	return errors.Join(append(c.errs, err)...)
}

// checkRules checks the flags that render has too.
func checkRules(rules topology.Rules) error {
	var c validator
	c.require("default-service", topology.ValidName(rules.DefaultService) == nil, rules.DefaultService, "a name of 1 to 63 letters, digits and inner dashes")
	c.require("tag-prefix", topology.ValidTagPrefix(rules.TagPrefix) == nil, rules.TagPrefix, "what stands behind tag:, a letter and then letters, digits and dashes, such as pool-")
	c.require("default-port", rules.DefaultPort > 0, rules.DefaultPort, "from 1 to 65535")
	c.duration("offline-grace", rules.OfflineGrace, 0, 24*time.Hour)
	c.duration("drain-window", rules.DrainWindow, 0, 30*24*time.Hour)
	return errors.Join(c.errs...)
}

// validator collects what is wrong.
type validator struct{ errs []error }

func (c *validator) require(flag string, ok bool, value any, right string) {
	if !ok {
		c.errs = append(c.errs, invalidValue(setting(flag), value, right))
	}
}

func (c *validator) duration(flag string, d, low, high time.Duration) {
	c.require(flag, d >= low && d <= high, d, fmt.Sprintf("from %s to %s", short(low), short(high)))
}

// httpURL refuses what is neither empty nor a URL that can be asked.
func httpURL(setting, value string) error {
	u, err := url.Parse(value)
	if value == "" || (err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "") {
		return nil
	}
	return invalidValue(setting, value, "a URL, such as http://127.0.0.1:8080/unhealthy")
}

// url never shows the value, since it may hold a password.
func (c *validator) url(flag, value string) {
	if value == "" {
		return
	}
	u, err := url.Parse(value)
	switch {
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "":
		c.errs = append(c.errs, fmt.Errorf("%s must be a URL such as https://headscale.example.com", setting(flag)))
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		c.errs = append(c.errs, fmt.Errorf("%s must hold no user, query or fragment; credentials have flags of their own", setting(flag)))
	}
}

func (c *validator) address(flag, value string) {
	_, port, err := net.SplitHostPort(value)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	c.require(flag, err == nil, value, "host:port, such as 127.0.0.1:9090")
}

func (c *validator) tag(flag, tag string) {
	name, ok := strings.CutPrefix(tag, "tag:")
	c.require(flag, ok && name != "" && !strings.ContainsAny(name, " :,"), tag, "a tag, such as tag:region-west")
}

// validPeer reports whether s is a host, with or without a port.
func validPeer(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return input.ValidHost(s)
	}
	return input.ValidPort(port) && input.ValidHost(host)
}

// invalidValue says of a value what would be right.
func invalidValue(setting string, value any, right string) error {
	if text, ok := value.(string); ok {
		value = input.Quoted(text)
	}
	return fmt.Errorf("%s is %v: it must be %s", setting, value, right)
}

// short is a duration as people write it: 24h and not 24h0m0s.
func short(d time.Duration) string { return policy.Duration(d).String() }
