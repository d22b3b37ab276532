package scripts_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	// place is an identifier and the file that declares it: `Name` in [path](path).
	place = regexp.MustCompile("`(\\w+)` in\\s+\\[[^\\]]+\\]\\(([^)#]+)\\)")
	// treePath is a path of the repository in code, such as `internal/envoy`.
	treePath = regexp.MustCompile("`((?:internal|integration|scripts|docs|deploy|bench|lab|cmd)/[\\w./-]+)`")
	// recipe is the name of a change.
	recipe = regexp.MustCompile(`(?m)^- \*\*([^*]+)\*\*`)
)

// CONTRIBUTING names files and identifiers. Each must be there.
func TestContributing_recipes_nameWhatExists(t *testing.T) {
	text, err := os.ReadFile("../CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	var recipes []string
	for _, match := range recipe.FindAllStringSubmatch(page, -1) {
		recipes = append(recipes, match[1])
	}
	for _, want := range []string{
		"A tag", "A provider", "A policy key", "A resource type", "A command", "A metric", "An alert",
		"An element of the live page", "A rule of the guard", "A way to break the lab",
	} {
		if !slices.Contains(recipes, want) {
			t.Errorf("there is no recipe for %q", want)
		}
	}
	places := place.FindAllStringSubmatch(page, -1)
	if len(places) < len(recipes) {
		t.Errorf("%d places are named, fewer than %d recipes", len(places), len(recipes))
	}
	for _, match := range places {
		if name, file := match[1], match[2]; !declares(t, file, name) {
			t.Errorf("%s declares no %s", file, name)
		}
	}
	for _, match := range treePath.FindAllStringSubmatch(page, -1) {
		if _, err := os.Stat(filepath.Join("..", match[1])); err != nil {
			t.Errorf("there is no %s: %v", match[1], err)
		}
	}
}

// declares reports whether a file declares a name: a function, a method, a type, a variable or
// a constant of Go, or a function of a shell script.
func declares(t *testing.T, file, name string) bool {
	t.Helper()
	file = filepath.Join("..", file)
	if filepath.Ext(file) != ".go" {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Error(err)
		}
		return strings.Contains("\n"+string(text), "\n"+name+"() {")
	}
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Error(err)
		return false
	}
	for _, declaration := range parsed.Decls {
		switch d := declaration.(type) {
		case *ast.FuncDecl:
			if d.Name.Name == name {
				return true
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				if declaresSpec(spec, name) {
					return true
				}
			}
		}
	}
	return false
}

func declaresSpec(spec ast.Spec, name string) bool {
	switch s := spec.(type) {
	case *ast.TypeSpec:
		return s.Name.Name == name
	case *ast.ValueSpec:
		return slices.ContainsFunc(s.Names, func(i *ast.Ident) bool { return i.Name == name })
	}
	return false
}
