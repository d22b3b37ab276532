package doctor

import (
	"fmt"
	"strings"
)

func resolves(h *Host) (Level, string, string) {
	var all []string
	for _, a := range h.Addresses {
		all = append(all, a.String())
	}
	switch {
	case h.ResolveError == "":
		return Pass, firstFew(all), ""
	case len(all) > 0:
		return Warn, fmt.Sprintf("its tailscaled knows it, %s, and its resolver does not: %s", firstFew(all), h.ResolveError),
			"run `tailscale set --accept-dns=true`; or leave it: an Envoy by `tailxds bootstrap` asks MagicDNS itself"
	default:
		return Fail, h.ResolveError, "see whether this host is on the tailnet and asks its MagicDNS, or name the control plane by its address"
	}
}

func reaches(h *Host) (Level, string, string) {
	switch {
	case len(h.Addresses) == 0:
		return "", "", ""
	case h.DialError != "":
		return Fail, h.DialError, "let the tailnet's policy grant this host's tag tcp:18000 on the control plane's: see docs/grants.md"
	default:
		return Pass, h.Target + " can be reached", ""
	}
}

func admitted(h *Host) (Level, string, string) {
	switch {
	case len(h.Addresses) == 0 || h.DialError != "":
		return "", "", ""
	case h.Refused != "":
		return Fail, "the control plane refuses this host: " + h.Refused, "give it a weight or a service by tag, grant or attribute, or let --allow name a tag of it"
	case h.CallError != "":
		return Fail, "what answers there is no control plane: " + h.CallError, "give --control-plane the host, and the port if it is not 18000"
	default:
		return Pass, "the control plane serves this host", ""
	}
}

func tailscaled(h *Host) (Level, string, string) {
	switch {
	case h.NodeError != "":
		return Warn, "it can't be asked here: " + h.NodeError, "run this where tailscaled's socket is"
	case h.Node == nil:
		return "", "", ""
	case h.Node.State != "Running":
		return Fail, "it is not on the tailnet: " + h.Node.State, "run `tailscale up`, and see `tailscale status`"
	case h.Node.LinkDown:
		return Warn, "its link to the coordination server is down", linkRemedy
	case len(h.Node.Health) > 0:
		return Warn, firstFew(h.Node.Health), "mend what it complains of"
	default:
		return Pass, strings.TrimSpace("as " + h.Node.Name + " " + strings.Join(h.Node.Tags, " ")), ""
	}
}

func hostPath(h *Host) (Level, string, string) {
	switch h.Path {
	case "":
		return "", "", ""
	case Direct:
		return Pass, "to the control plane", ""
	default:
		return Warn, fmt.Sprintf("to the control plane by %s", h.Path), relayRemedy
	}
}

func hostEnvoy(h *Host) (Level, string, string) {
	switch {
	case h.EnvoyError != "":
		return Warn, "it can't be asked: " + h.EnvoyError, "give its admin page with --envoy-admin"
	case h.EnvoyVersion == "":
		return "", "", ""
	case !h.EnvoyConnected:
		return Fail, h.EnvoyVersion + ", and it has no stream to the control plane", "see its log for the control plane's cluster, and its bootstrap for the name"
	default:
		return Pass, h.EnvoyVersion + ", connected to the control plane", ""
	}
}
