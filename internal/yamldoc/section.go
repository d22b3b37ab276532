package yamldoc

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/tailxds/tailxds/internal/topology"
)

// Section is the node at a path of a document; it collects the document's faults.
type Section struct {
	faults  *Faults
	path    string
	node    *yaml.Node // nil where nothing stands
	nearest *yaml.Node // what stands nearest to the path
}

// Err returns the faults of the whole document as [Faults], or nil.
func (s Section) Err() error {
	if len(*s.faults) == 0 {
		return nil
	}
	return s.faults.sorted()
}

// Written reports whether the document has the path, even with null.
func (s Section) Written() bool { return s.node != nil }

// Null reports whether there is no value.
func (s Section) Null() bool { return s.node == nil || s.node.ShortTag() == nullTag }

const nullTag = "!!null"

// Scalar returns the scalar's text; empty if the value is no scalar.
func (s Section) Scalar() string {
	if s.Null() || s.node.Kind != yaml.ScalarNode {
		return ""
	}
	return s.node.Value
}

// Valid reports whether there is no fault here or below.
func (s Section) Valid() bool { return !s.faults.hasAt(s.path) }

// AddError adds a fault, unless there are [maxFaults] already.
func (s Section) AddError(format string, args ...any) {
	if s.faults.isFull() {
		return
	}
	fault := Fault{Line: 1, Column: 1, Path: s.path, Reason: fmt.Sprintf(format, args...)}
	if s.nearest != nil {
		fault.Line, fault.Column = s.nearest.Line, s.nearest.Column
	}
	*s.faults = append(*s.faults, fault)
}

// Require adds the fault want unless ok. A value that could not be read has a fault
// already; for a number, its reason becomes want.
func (s Section) Require(ok bool, want string) {
	unread := slices.IndexFunc(*s.faults, func(f Fault) bool { return f.needsNumber && f.Path == s.path })
	switch {
	case unread >= 0:
		(*s.faults)[unread].Reason = want + ", and not " + describe(s.node)
	case !ok && s.Valid():
		s.AddError("%s", want)
	}
}

// AddUnknownKeys adds the fault that there is no such key, with the key that was
// probably meant.
func (s Section) AddUnknownKeys(keys []string) {
	if s.faults.isFull() {
		return
	}
	name := strings.ToLower(s.path[strings.LastIndexByte(s.path, '.')+1:])
	best, least := "", 3
	for _, key := range keys {
		if slips := topology.EditDistance(name, key); slips < least && slips <= len(key)/3 {
			best, least = key, slips
		}
	}
	if best != "" {
		s.AddError("there is no such key; did you mean %s?", best)
		return
	}
	s.AddError("there is no such key; there are %s", strings.Join(keys, ", "))
}

// At returns the section at a dotted path below, such as routes[0].path.
func (s Section) At(path string) Section {
	for step := range strings.SplitSeq(strings.ReplaceAll(path, "[", ".["), ".") {
		if index, isIndex := strings.CutPrefix(step, "["); isIndex {
			n, _ := strconv.Atoi(strings.TrimSuffix(index, "]"))
			s = s.Item(n)
			continue
		}
		s = s.Key(step)
	}
	return s
}

// Item returns the nth item of a list, from 0.
func (s Section) Item(n int) Section {
	s.path += fmt.Sprintf("[%d]", n)
	if s.node == nil || s.node.Kind != yaml.SequenceNode || n >= len(s.node.Content) {
		s.node = nil
		return s
	}
	s.nearest = s.node.Content[n]
	s.node = resolve(s.nearest)
	return s
}

// Key returns the section below a key.
func (s Section) Key(name string) Section {
	for _, p := range pairs(s.node) {
		if p.key.Value == name {
			return s.below(p)
		}
	}
	s.path = s.join(name)
	s.node = nil
	return s
}

func (s Section) below(p pair) Section {
	return Section{s.faults, s.join(p.key.Value), resolve(p.value), p.value}
}

func (s Section) join(name string) string { return strings.TrimPrefix(s.path+"."+name, ".") }

// Entry is one key of a mapping, and its value.
type Entry struct {
	Name string
	Section
	// AtKey is the same section, for faults of the key itself.
	AtKey Section
}

// Entries returns the keys of a mapping, and adds faults for duplicates.
func (s Section) Entries() []Entry {
	if s.node.Kind != yaml.MappingNode {
		s.AddError("must be keys and their values, and not %s", describe(s.node))
		return nil
	}
	lines := make(map[string]int)
	var all []Entry
	for _, p := range pairs(s.node) {
		e := Entry{p.key.Value, s.below(p), s.below(p)}
		e.AtKey.nearest = p.key
		line, twice := lines[e.Name]
		switch {
		case !twice:
			lines[e.Name] = p.key.Line
			all = append(all, e)
		case !p.merged: // what is merged gives way
			e.AtKey.AddError("stands there twice, in line %d already", line)
		}
	}
	return all
}
