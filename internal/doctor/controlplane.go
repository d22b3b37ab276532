package doctor

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

func version(f Facts) (Level, string, string) {
	switch c := f.ControlPlane; {
	case c == nil:
		return "", "", ""
	case c.Version != f.Version:
		return Warn, fmt.Sprintf("%s; this program is %s", c.Version, f.Version), "examine it with the program that it runs"
	default:
		return Pass, c.Version, ""
	}
}

func deviceList(c *ControlPlane) (Level, string, string) {
	switch {
	case c.Joining != "":
		return "", "", ""
	case c.LastGood.IsZero():
		return Fail, "none yet: " + orElse(c.SourceError, "the source has not answered"), "see whether the control plane reaches its source, and with which credential"
	case c.SourceError != "":
		return Fail, fmt.Sprintf("%s old: %s", age(c, c.LastGood), c.SourceError), "see whether the control plane reaches its source, and with which credential"
	default:
		return Pass, fmt.Sprintf("from %s, %s old", c.Source, age(c, c.LastGood)), ""
	}
}

func age(c *ControlPlane, at time.Time) time.Duration { return c.Now.Sub(at).Round(time.Second) }

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func policyFile(c *ControlPlane) (Level, string, string) {
	if c.PolicyError != "" {
		return Fail, "it is bad, and the last good one holds: " + c.PolicyError, "mend the file; `tailxds check FILE` tells when it is good"
	}
	return Pass, "good", ""
}

func publication(c *ControlPlane) (Level, string, string) {
	switch {
	case c.PublishError != "" && c.PublishedAt.IsZero():
		return Fail, "nothing is published: " + c.PublishError, "fix what it names"
	case c.PublishError != "":
		return Fail, "what was published last stays: " + c.PublishError, "fix what it names"
	case c.PublishedAt.IsZero():
		return Fail, "nothing is published yet, so no service is served", "fix the failed checks above; the first device list is published at once"
	default:
		return Pass, "what is known is published", ""
	}
}

func connected(c *ControlPlane) (Level, string, string) {
	var alone, all []string
	for _, e := range c.Endpoints {
		if e.State != "serving" {
			continue
		}
		all = append(all, e.Name)
		if !e.Connected {
			alone = append(alone, e.Name)
		}
	}
	slices.Sort(all)
	slices.Sort(alone)
	all, alone = slices.Compact(all), slices.Compact(alone)
	const mend = "run `tailxds doctor --control-plane HOST` on one of them"
	switch {
	case len(all) == 0 && len(c.Envoys) == 0:
		return "", "", ""
	case len(c.Envoys) == 0:
		return Fail, "no Envoy is connected", mend
	case len(alone) > 0:
		return Warn, fmt.Sprintf("%d of %d servers have no Envoy connected: %s", len(alone), len(all), firstFew(alone)), mend
	default:
		return Pass, fmt.Sprintf("%d, and one beside each of %d servers", len(c.Envoys), len(all)), ""
	}
}

func configurationAccepted(c *ControlPlane) (Level, string, string) {
	var rejected []string
	for _, e := range c.Envoys {
		if e.Rejected != "" {
			rejected = append(rejected, e.Name+": "+e.Rejected)
		}
	}
	switch {
	case len(rejected) > 0:
		return Fail, "rejected by " + firstFew(rejected), "mend what its words name; until then it keeps what it had"
	case len(c.Envoys) == 0:
		return "", "", ""
	default:
		return Pass, "no Envoy rejects anything", ""
	}
}

// oldestEnvoy and newestEnvoy are the minor versions of Envoy 1 between which this
// program is tested. Older ones do not know a part of the bootstrap.
const oldestEnvoy, newestEnvoy = 37, 40

// supported reports whether a version such as 1.40.0 is between them.
func supported(version string) bool {
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d.", &major, &minor); err != nil {
		return false
	}
	return major == 1 && minor >= oldestEnvoy && minor <= newestEnvoy
}

func versions(c *ControlPlane) (Level, string, string) {
	found := make(map[string]bool)
	var other []string
	for _, e := range c.Envoys {
		if e.Version == "" {
			continue
		}
		found[e.Version] = true
		if !supported(e.Version) {
			other = append(other, e.Name+" has "+e.Version)
		}
	}
	slices.Sort(other)
	switch {
	case len(found) == 0:
		return "", "", ""
	case len(other) > 0:
		return Warn, firstFew(other), fmt.Sprintf("run Envoy 1.%d to 1.%d, which this program is tested with", oldestEnvoy, newestEnvoy)
	default:
		var all []string
		for v := range found {
			all = append(all, v)
		}
		slices.Sort(all)
		return Pass, strings.Join(all, ", "), ""
	}
}

func servicesServed(c *ControlPlane) (Level, string, string) {
	if len(c.Degraded) > 0 {
		return Fail, firstFew(c.Degraded), "bring one of its servers back; `tailxds status` says why each of them does not serve"
	}
	return Pass, "each service that has servers has one that serves", ""
}

func nothingHeld(c *ControlPlane) (Level, string, string) {
	if len(c.Held) > 0 {
		return Warn, firstFew(c.Held), "mend the list, or let it through with `tailxds accept`"
	}
	return Pass, "all that the tailnet says is published", ""
}

func noProblems(c *ControlPlane) (Level, string, string) {
	if len(c.Problems) > 0 {
		return Warn, fmt.Sprintf("%d: %s", len(c.Problems), firstFew(c.Problems)), "mend the tag, grant or attribute that each of them names"
	}
	return Pass, "no tag, grant or attribute is ignored", ""
}

// maxOpenDrainAge is the age at which a drain without an end is reported, since it
// may have been forgotten.
const maxOpenDrainAge = 24 * time.Hour

func drains(c *ControlPlane) (Level, string, string) {
	var all, old []string
	for _, d := range c.Drains {
		all = append(all, d.Name)
		if d.Until.IsZero() && c.Now.Sub(d.At) > maxOpenDrainAge {
			old = append(old, fmt.Sprintf("%s by %s for %s", d.Name, d.By, age(c, d.At).Truncate(time.Hour)))
		}
	}
	switch {
	case len(old) > 0:
		return Warn, "drained without an end: " + firstFew(old), "end it with `tailxds restore`, or give it an end with `tailxds drain --for`"
	case len(all) > 0:
		return Pass, "drained: " + firstFew(all), ""
	default:
		return Pass, "none", ""
	}
}
