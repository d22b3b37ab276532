package view

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tailxds/tailxds/internal/dashboard"
	"github.com/tailxds/tailxds/internal/events"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/traffic"
)

// problems are what somebody should mend, the worst first. Each says how.
func (f Input) problems(p order) []dashboard.Problem {
	all := []dashboard.Problem{}
	all = append(all, f.policyProblems()...)
	for _, service := range f.Degraded {
		all = append(all, dashboard.Problem{
			Severity: dashboard.Error, Title: "Nobody serves " + service,
			Remedy: "bring a server back, or drop the service from the policy file",
		})
	}
	for _, i := range p.servers {
		all = append(all, f.healthProblems(f.Table.Servers[i])...)
	}
	for _, e := range p.entries {
		all = append(all, f.entryProblems(e)...)
	}
	return append(all, f.metadataProblems(p)...)
}

// healthProblems are what Envoys find: that a server is sick, or that some of them
// don't reach it.
func (f Input) healthProblems(s traffic.Server) []dashboard.Problem {
	about := dashboard.Problem{About: dashboard.AboutServer, ID: s.Address.String(), Name: cmp.Or(s.Name, s.Device)}
	about.Detail = fmt.Sprintf("%d of %d Envoys say so", s.Reporting-s.Healthy, s.Reporting)
	switch {
	case s.Unhealthy():
		about.Severity, about.Title = dashboard.Error, "is unhealthy"
		about.Remedy = fmt.Sprintf("is its server up at %s, and does the policy's health_check fit it?", s.Address)
	case s.State == topology.Serving && s.Healthy < s.Reporting:
		about.Severity, about.Title = dashboard.Warning, "is unhealthy for some"
		about.Detail += ": " + nameSome(s.UnhealthyFor)
		about.Remedy = "is the way from them to it open? To the others it answers"
	default:
		return nil
	}
	return []dashboard.Problem{about}
}

// nameSome are names of devices, without their tailnet's domain, and not too many.
func nameSome(devices []string) string {
	const most = 4
	var names []string
	for _, d := range devices[:min(most, len(devices))] {
		names = append(names, Envoy{Device: d, Node: d}.name())
	}
	if more := len(devices) - most; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names, ", "), more)
	}
	return strings.Join(names, ", ")
}

func (f Input) policyProblems() []dashboard.Problem {
	var all []dashboard.Problem
	if f.PolicyError != "" {
		all = append(all, dashboard.Problem{
			Severity: dashboard.Error, Title: "The policy file is bad", Detail: f.PolicyError,
			Remedy: "edit it; `tailxds check` says whether it is good. The last good one is in force",
		})
	}
	if f.PublishError != "" {
		all = append(all, dashboard.Problem{
			Severity: dashboard.Error, Title: "Nothing new can be published", Detail: f.PublishError,
			Remedy: "Envoys keep what they have until that is mended",
		})
	}
	return all
}

// firstReportTimeout is how long a connected Envoy may take to its first report.
const firstReportTimeout = 20 * time.Second

func (f Input) entryProblems(e entry) []dashboard.Problem {
	about := dashboard.Problem{About: dashboard.AboutEntry, ID: e.id, Name: e.name}
	var all []dashboard.Problem
	if shown := e.toWire(); shown.Sync == dashboard.Rejected {
		rejected := about
		rejected.Severity, rejected.Title, rejected.Detail = dashboard.Error, "rejected what it was sent", shown.Rejection
		rejected.Remedy = "edit the policy file, or update this Envoy; it keeps its last good configuration"
		rejected.Since = f.since(func(c events.Event) bool { return c.Kind == events.Rejected && c.Name == e.Device })
		all = append(all, rejected)
	}
	if !e.isReporting() && f.Now.Sub(e.Since) > firstReportTimeout && f.hasReports() {
		silent := about
		silent.Severity, silent.Title = dashboard.Warning, "reports nothing"
		silent.Remedy = "print its bootstrap anew with `tailxds bootstrap`, and start it with that"
		if e.report != nil { // its stream may take a minute to be known as dead
			silent.Title, silent.Since = "reports no more", e.report.Seen.UnixMilli()
			silent.Remedy = "is its host up, and on the tailnet?"
		}
		all = append(all, silent)
	}
	return all
}

// hasReports is whether any Envoy reports: if none does, a notice says so.
func (f Input) hasReports() bool {
	for _, e := range f.Traffic.View.Envoys {
		if !e.Stale {
			return true
		}
	}
	return false
}

// metadataProblems are what is ignored of the tailnet's tags, grants and
// attributes. That all Envoys find a server unhealthy is told before.
func (f Input) metadataProblems(p order) []dashboard.Problem {
	var all []dashboard.Problem
	sick := traffic.Unhealthy(f.Tables)
	for _, problem := range f.Problems {
		if slices.Contains(sick, problem) {
			continue
		}
		told := dashboard.Problem{
			Severity: dashboard.Warning, Name: cmp.Or(problem.Name, problem.Device), Title: problem.Subject, Detail: problem.Reason, Remedy: remedyOf(problem),
			Since: f.since(func(c events.Event) bool {
				return c.Kind == events.Problem && c.Device == problem.Device && c.To == problem.Subject
			}),
		}
		for _, i := range p.servers {
			if s := f.Table.Servers[i]; s.Device == problem.Device {
				told.About, told.ID = dashboard.AboutServer, s.Address.String()
			}
		}
		all = append(all, told)
	}
	return all
}

// remedyOf is what to do about something that is ignored, by what it is.
func remedyOf(p topology.Problem) string {
	switch {
	case strings.HasPrefix(p.Subject, "tag:"):
		return "give the device another tag; until then its last good value counts"
	case strings.HasPrefix(p.Subject, "grant"):
		return "edit the grant in the tailnet's policy; until then its last good value counts"
	case strings.HasPrefix(p.Subject, "custom:"):
		return "set the device's posture attribute anew; until then its last good value counts"
	case p.Subject == "region":
		return "start the Envoy with the bootstrap that `tailxds bootstrap --region` prints"
	case p.Subject == "missing" || p.Subject == "offline":
		return "look whether the source's list is whole; nothing is lost meanwhile"
	default:
		return "`tailxds explain` says where it comes from"
	}
}

// since is when a change of a kind happened last; 0 if that is forgotten.
func (f Input) since(is func(events.Event) bool) int64 {
	if i := slices.IndexFunc(f.Changes, is); i >= 0 {
		return f.Changes[i].At.UnixMilli()
	}
	return 0
}

// notices say in what way the page is not to be trusted.
func (f Input) notices(p order) []dashboard.Notice {
	all := []dashboard.Notice{}
	tell := func(title, format string, args ...any) {
		all = append(all, dashboard.Notice{Title: title, Text: fmt.Sprintf(format, args...)})
	}
	if !f.Ready {
		tell("Not ready", "%s", strings.TrimPrefix(f.Detail, "not ready: "))
		return all
	}
	switch s := f.Source; {
	case s == nil:
	case s.Stale:
		why := cmp.Or(s.Error, "none has come since the start")
		tell("The list of devices is old", "It is from %s; what it says is served on. %s.", s.LastGood.UTC().Format("2006-01-02 15:04:05 MST"), capitalize(why))
	case s.LinkDown:
		tell("The link to the coordination server is down", "Changes of devices, tags and grants act late. "+
			"The control plane's node connects again by itself: is the server up, and reachable from it?")
	}
	switch {
	case len(p.entries) == 0:
		tell("No Envoy is connected", "Nothing is known of traffic and health. Give each Envoy the bootstrap that `tailxds bootstrap` prints.")
	case !f.hasReports() && slices.ContainsFunc(p.entries, func(e entry) bool { return f.Now.Sub(e.Since) > firstReportTimeout }):
		tell("No Envoy reports", "Nothing is known of traffic and health, though %d %s connected: "+
			"were they started with the bootstrap that this `tailxds bootstrap` prints?", len(p.entries), verb(len(p.entries)))
	}
	return all
}

func verb(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

func capitalize(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
