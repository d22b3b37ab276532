package events

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// edit is a changed value of the policy, of any number of services: one edit of the
// defaults is one of many services.
type edit struct{ key, from, to string }

// diffPolicies returns which values of the policy changed.
func diffPolicies(was, is Snapshot) []Event {
	edits := make(map[edit][]string)
	for name := range union(was.Policies, is.Policies) {
		w, i := effectivePolicy(was.Policies, name), effectivePolicy(is.Policies, name)
		for key := range union(w, i) {
			if e := (edit{key, w[key], i[key]}); e.from != e.to {
				edits[e] = append(edits[e], name)
			}
		}
	}
	var all []Event
	for _, key := range slices.Sorted(maps.Keys(union(was.Ingress, is.Ingress))) {
		if from, to := was.Ingress[key], is.Ingress[key]; from != to {
			all = append(all, Event{Kind: Policy, Key: key, From: from, To: to, Text: fmt.Sprintf("policy of the ingress: %s %s → %s", key, orNone(from), orNone(to))})
		}
	}
	for _, e := range slices.SortedFunc(maps.Keys(edits), edit.compare) {
		c := Event{Kind: Policy, Key: e.key, From: e.from, To: e.to}
		names := edits[e]
		slices.Sort(names)
		if len(names) == 1 {
			c.Service = names[0]
		}
		if names[0] == "" {
			names[0] = "the defaults"
		}
		c.Text = fmt.Sprintf("policy of %s: %s %s → %s", joinNames(names), e.key, orNone(e.from), orNone(e.to))
		all = append(all, c)
	}
	switch {
	case was.PolicyError == is.PolicyError:
	case is.PolicyError == "":
		all = append(all, Event{Kind: Fixed, Text: "the policy file is good again"})
	default:
		all = append(all, Event{Kind: Problem, Text: "the policy file is bad, the last good policy stays: " + is.PolicyError})
	}
	return all
}

// effectivePolicy returns a service's policy, or that of all services without one.
func effectivePolicy(all map[string]map[string]string, name string) map[string]string {
	if own, ok := all[name]; ok {
		return own
	}
	return all[""]
}

func (e edit) compare(o edit) int {
	return cmp.Or(cmp.Compare(e.key, o.key), cmp.Compare(e.from, o.from), cmp.Compare(e.to, o.to))
}
