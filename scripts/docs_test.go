package scripts_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
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

// Every link from a page to a file or a heading of this repository leads there.
func TestLinksOfThePages(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "git", "-C", "..", "ls-files", "--", "*.md").Output()
	if err != nil {
		t.Skipf("the pages are found by git: %v", err)
	}
	links := 0
	for name := range strings.Lines(string(out)) {
		name = strings.TrimSpace(name)
		page, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			continue // removed, and not yet committed
		}
		for _, match := range link.FindAllStringSubmatch(fence.ReplaceAllString(string(page), ""), -1) {
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
