package dashboard

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite web/wire.d.ts")

// TestWire_types_matchTheFile keeps what the page believes it is told equal to what it is
// told: wire.d.ts is made from the Go types.
func TestWire_types_matchTheFile(t *testing.T) {
	want := declarations(t, reflect.TypeFor[Snapshot](), reflect.TypeFor[Tick](), reflect.TypeFor[History](), reflect.TypeFor[Viewer](), reflect.TypeFor[Action](), reflect.TypeFor[Preview]())
	if *update {
		if err := os.WriteFile("web/wire.d.ts", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile("web/wire.d.ts")
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != want {
		t.Error("web/wire.d.ts is stale: run go test -run TestWire_types_matchTheFile -update")
	}
}

// declarations writes types and all that they hold as TypeScript.
func declarations(t *testing.T, types ...reflect.Type) string {
	values := constants(t)
	var b strings.Builder
	b.WriteString("// Made from wire.go by TestWire_types_matchTheFile; do not edit.\n")
	seen := map[reflect.Type]bool{}
	for len(types) > 0 {
		typ := types[0]
		types = types[1:]
		if seen[typ] {
			continue
		}
		seen[typ] = true
		if typ.Kind() == reflect.String {
			fmt.Fprintf(&b, "\nexport type %s = %s;\n", typ.Name(), strings.Join(values[typ.Name()], " | "))
			continue
		}
		fmt.Fprintf(&b, "\nexport interface %s {\n", typ.Name())
		for field := range typ.Fields() {
			name, more := typeScript(field.Type)
			fmt.Fprintf(&b, "  %s: %s;\n", field.Tag.Get("json"), name)
			types = append(types, more...)
		}
		b.WriteString("}\n")
	}
	return b.String()
}

// typeScript names a type, and gives those that must be declared for it.
func typeScript(typ reflect.Type) (name string, more []reflect.Type) {
	switch typ.Kind() {
	case reflect.Pointer:
		name, more = typeScript(typ.Elem())
		return name + " | null", more
	case reflect.Slice:
		name, more = typeScript(typ.Elem())
		return name + "[]", more
	case reflect.Array:
		name, more = typeScript(typ.Elem())
		return "[" + strings.TrimSuffix(strings.Repeat(name+", ", typ.Len()), ", ") + "]", more
	case reflect.Struct:
		return typ.Name(), []reflect.Type{typ}
	case reflect.String:
		if typ.Name() != "string" {
			return typ.Name(), []reflect.Type{typ}
		}
		return "string", nil
	case reflect.Bool:
		return "boolean", nil
	default:
		return "number", nil
	}
}

// constants are the values of each named string type in wire.go.
func constants(t *testing.T) map[string][]string {
	file, err := parser.ParseFile(token.NewFileSet(), "wire.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string][]string{}
	for _, decl := range file.Decls {
		group, ok := decl.(*ast.GenDecl)
		if !ok || group.Tok != token.CONST {
			continue
		}
		for _, spec := range group.Specs {
			value := spec.(*ast.ValueSpec)
			typ := value.Type.(*ast.Ident).Name
			values[typ] = append(values[typ], value.Values[0].(*ast.BasicLit).Value)
		}
	}
	return values
}
