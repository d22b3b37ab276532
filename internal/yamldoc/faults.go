package yamldoc

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Fault is one fault of a document.
type Fault struct {
	// Line and Column are its place, both from 1.
	Line, Column int
	// Path is the key, services.hello.retries; empty for the whole document.
	Path string
	// Reason says what is required.
	Reason string

	needsNumber bool // a number was wanted there, and none could be read
}

// String is "line 3: services.hello.retries: must be from 0 to 10".
func (f Fault) String() string { return fmt.Sprintf("line %d: %s", f.Line, f.Text()) }

// Text returns the fault without its line.
func (f Fault) Text() string {
	if f.Path == "" {
		return f.Reason
	}
	return f.Path + ": " + f.Reason
}

// Faults are a document's faults in the order of its lines, at most [maxFaults].
type Faults []Fault

// maxFaults bounds the reported faults of a document. A further one says that there
// may be more.
const maxFaults = 100

// isFull reports whether further faults are dropped.
func (f Faults) isFull() bool { return len(f) >= maxFaults }

// Error returns all of them on one line.
func (f Faults) Error() string {
	all := make([]string, len(f))
	for i, fault := range f {
		all[i] = fault.String()
	}
	return strings.Join(all, "; ")
}

// hasAt reports whether there is a fault at a path or below it.
func (f Faults) hasAt(path string) bool {
	return slices.ContainsFunc(f, func(fault Fault) bool {
		rest, below := strings.CutPrefix(fault.Path, path)
		return below && (path == "" || rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

// sorted returns the faults in the order of the lines.
func (f Faults) sorted() Faults {
	all := slices.SortedStableFunc(slices.Values(f), func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if f.isFull() {
		last := all[len(all)-1]
		all = append(all, Fault{Line: last.Line, Column: last.Column, Reason: fmt.Sprintf("the first %d faults are listed, and there may be more", maxFaults)})
	}
	return all
}
