package xds

import "github.com/tailxds/tailxds/internal/xds/resource"

// unknownType is the short name of all types that are not served. It is a metric's
// label, so what a peer makes up gets no name of its own.
const unknownType = "unknown"

// typeTable finds types by URL. A type's index is its place in the table; one index
// more stands for all types that are not served.
type typeTable struct {
	types []resource.Type
	byURL map[string]int
}

func newTypeTable(types []resource.Type) typeTable {
	t := typeTable{types: types, byURL: make(map[string]int, len(types))}
	for i, typ := range types {
		t.byURL[typ.URL] = i
	}
	return t
}

// size is how many indexes there are.
func (t typeTable) size() int { return len(t.types) + 1 }

// served reports whether a type is served.
func (t typeTable) served(url string) bool {
	_, ok := t.byURL[url]
	return ok
}

// index returns the index of a type URL.
func (t typeTable) index(url string) int {
	if i, ok := t.byURL[url]; ok {
		return i
	}
	return len(t.types)
}

// name returns the short name of the type with an index.
func (t typeTable) name(index int) string {
	if index < len(t.types) {
		return t.types[index].Name
	}
	return unknownType
}
