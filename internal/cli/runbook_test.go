package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// row is one of the runbook's: what is seen, where to look, what mends it.
type row struct{ symptom, look, mend string }

func runbook(t *testing.T) []row {
	t.Helper()
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## At 3 a.m.\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var rows []row
	for line := range strings.Lines(section) {
		if cells := strings.Split(strings.TrimSpace(line), "|"); len(cells) == 5 {
			rows = append(rows, row{cells[1], cells[2], cells[3]})
		}
	}
	if len(rows) < 3 {
		t.Fatalf("docs/operations.md has no runbook any more, or one without rows: %q", section)
	}
	return rows[2:] // without the heading and the line below it
}

var code = regexp.MustCompile("`([^`]+)`")

// typed tells what is wrong with a command of tailxds, as it stands on a page.
func typed(words []string) error {
	cmd, args, err := rootCommand(nil).Find(words[1:])
	if err != nil {
		return err
	}
	if cmd.Name() == "tailxds" && len(words) > 1 && !strings.HasPrefix(words[1], "-") {
		return fmt.Errorf("there is no command %s", words[1])
	}
	if err := cmd.ParseFlags(args); err != nil {
		return err
	}
	if cmd.Args == nil {
		return nil
	}
	return cmd.Args(cmd, cmd.Flags().Args())
}

// Every command of the runbook can be typed as it stands there.
func TestRunbook_commands_exist(t *testing.T) {
	others := []string{"curl", "docker", "kubectl", "systemctl", "tailscale"}
	for _, r := range runbook(t) {
		for _, match := range code.FindAllStringSubmatch(r.look+r.mend, -1) {
			words := strings.Fields(match[1])
			if words[0] == "tailxds" {
				if err := typed(words); err != nil {
					t.Errorf("`%s`: %v", match[1], err)
				}
			} else if len(words) > 1 && !slices.Contains(others, words[0]) && words[0] != "via" {
				t.Errorf("`%s` is a command of no program that is known here", match[1])
			}
		}
		if !code.MatchString(r.look) {
			t.Errorf("the row of %s names nothing to look at", r.symptom)
		}
		if strings.TrimSpace(r.mend) == "" {
			t.Errorf("the row of %s mends nothing", r.symptom)
		}
	}
}

// The runbook has a row for each alert, and no other alerts.
func TestRunbook_alerts_areDocumented(t *testing.T) {
	rules, err := os.ReadFile("../../deploy/monitoring/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var alerts, told []string
	for _, match := range regexp.MustCompile(`alert: (\S+)`).FindAllStringSubmatch(string(rules), -1) {
		alerts = append(alerts, match[1])
	}
	for _, r := range runbook(t) {
		told = append(told, regexp.MustCompile(`Tailxds[A-Za-z]+`).FindAllString(r.symptom, -1)...)
	}
	slices.Sort(alerts)
	slices.Sort(told)
	if !slices.Equal(alerts, told) || len(alerts) == 0 {
		t.Errorf("the alerts are\n%v\nand the runbook has\n%v", alerts, told)
	}
}

// mentioned tells what is wrong with a command that a sentence names, perhaps
// without what it must be given.
func mentioned(words []string) error {
	cmd, args, err := rootCommand(nil).Find(words[1:])
	if err == nil && cmd.Name() == "tailxds" && len(words) > 1 {
		err = fmt.Errorf("there is no command %s", words[1])
	}
	for _, arg := range args {
		if name, is := strings.CutPrefix(arg, "--"); is && err == nil {
			if name, _, _ = strings.Cut(name, "="); cmd.Flags().Lookup(name) == nil {
				err = fmt.Errorf("there is no flag --%s", name)
			}
		}
	}
	return err
}

// The same of each command of tailxds on the other pages, in a block or within a
// sentence.
func TestDocs_commands_exist(t *testing.T) {
	var pages []string
	for _, pattern := range []string{"../../*.md", "../../docs/*.md", "../../deploy/*/README.md", "../../deploy/*/*/README.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, found...)
	}
	standing := regexp.MustCompile("(?m)^ *(?:\\$ )?(tailxds [^#\n]*)|`(tailxds [^`\n]+)`")
	seen := 0
	for _, name := range pages {
		page, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range standing.FindAllStringSubmatch(string(page), -1) {
			command, wrong := match[2], mentioned
			if command == "" {
				command, wrong = match[1], typed
				if !inBlock(string(page), match[0]) {
					continue // a line of prose that begins so
				}
			}
			command, _, _ = strings.Cut(strings.TrimSpace(command), " >")
			command, _, _ = strings.Cut(command, " |")
			if strings.ContainsAny(command, "…[") {
				continue // not as it is typed
			}
			seen++
			if err := wrong(strings.Fields(command)); err != nil {
				t.Errorf("%s: `%s`: %v", name, command, err)
			}
		}
	}
	if seen < 30 {
		t.Errorf("only %d commands were found in %v", seen, pages)
	}
}

// inBlock tells whether a line stands in a block of code.
func inBlock(page, line string) bool {
	before, _, _ := strings.Cut(page, line)
	return strings.Count(before, "```")%2 == 1
}
