package scripts_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
	fence   = regexp.MustCompile("(?ms)^```.*?^```")
	dropped = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// anchors are what a page's headings are linked by.
func anchors(page string) map[string]bool {
	all := make(map[string]bool)
	for _, match := range heading.FindAllStringSubmatch(fence.ReplaceAllString(page, ""), -1) {
		all[strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(match[1]), ""), " ", "-")] = true
	}
	return all
}

// pages are the texts of all pages, by their names.
func pages(t *testing.T) map[string]string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "git", "-C", "..", "ls-files", "--", "*.md").Output()
	if err != nil {
		t.Skipf("the pages are found by git: %v", err)
	}
	all := make(map[string]string)
	for name := range strings.Lines(string(out)) {
		name = strings.TrimSpace(name)
		page, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			continue // removed, and not yet committed
		}
		all[name] = string(page)
	}
	return all
}

// A line of prose fits a terminal beside an editor's margin. Tables and code are
// as wide as they are.
func TestPages_lines_fit(t *testing.T) {
	for name, page := range pages(t) {
		if name == "docs/benchmarks.md" {
			continue // `make bench` writes it
		}
		for line := range strings.Lines(fence.ReplaceAllString(page, "")) {
			line = strings.TrimRight(line, "\n")
			if n := utf8.RuneCountInString(line); n > 130 && !strings.HasPrefix(strings.TrimSpace(line), "|") {
				t.Errorf("%s has a line of %d characters, want at most 130: %s", name, n, line)
			}
		}
	}
}

// Every link from a page to a file or a heading of this repository leads there.
func TestPages_links_leadSomewhere(t *testing.T) {
	links := 0
	for name, page := range pages(t) {
		for _, match := range link.FindAllStringSubmatch(fence.ReplaceAllString(page, ""), -1) {
			file, anchor, hasAnchor := strings.Cut(match[1], "#")
			if strings.Contains(file, ":") {
				continue // elsewhere
			}
			links++
			target := filepath.Join("..", filepath.Dir(name), file)
			if file == "" {
				target = filepath.Join("..", name)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s, which is not there", name, match[1])
			} else if hasAnchor {
				if text, err := os.ReadFile(target); err != nil || !anchors(string(text))[anchor] {
					t.Errorf("%s links to %s, and there is no such heading", name, match[1])
				}
			}
		}
	}
	if links < 10 {
		t.Errorf("only %d links were found", links)
	}
}
