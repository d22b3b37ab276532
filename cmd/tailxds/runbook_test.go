package main

import (
	"os"
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

// Every command of the runbook can be typed as it stands there.
func TestRunbookCommandsExist(t *testing.T) {
	others := []string{"curl", "docker", "kubectl", "systemctl", "tailscale"}
	for _, r := range runbook(t) {
		for _, match := range code.FindAllStringSubmatch(r.look+r.mend, -1) {
			words := strings.Fields(match[1])
			if words[0] == "tailxds" {
				cmd, args, err := rootCommand(nil).Find(words[1:])
				if err == nil && cmd.Name() == "tailxds" {
					t.Errorf("`%s`: there is no such command", match[1])
				} else if err == nil {
					err = cmd.ParseFlags(args)
				}
				if err == nil && cmd.Args != nil {
					err = cmd.Args(cmd, cmd.Flags().Args())
				}
				if err != nil {
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
func TestRunbookHasEachAlert(t *testing.T) {
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
