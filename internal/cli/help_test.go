package cli

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// ours are the commands that are written here.
func ours(root *cobra.Command) []*cobra.Command {
	return slices.DeleteFunc(root.Commands(), func(c *cobra.Command) bool {
		return slices.Contains([]string{"completion", "help", "documents"}, c.Name())
	})
}

// Each command has examples, and each of them can be parsed.
func TestHelp_examples_parse(t *testing.T) {
	word := regexp.MustCompile(`"[^"]*"|\S+`)
	for _, c := range ours(rootCommand(nil)) {
		parsed := 0
		for line := range strings.Lines(c.Example) {
			if !strings.HasPrefix(line, "  ") || len(strings.TrimRight(line, "\n")) > helpWidth {
				t.Errorf("%s: %q is not indented by two, or too long", c.Name(), line)
			}
			_, command, found := strings.Cut(line, "tailxds ")
			if !found {
				t.Errorf("%s: %q runs no tailxds", c.Name(), line)
				continue
			}
			command, _, _ = strings.Cut(command, ">")
			command, _, _ = strings.Cut(command, "<")
			example, args, err := rootCommand(nil).Find(word.FindAllString(command, -1))
			if err == nil {
				err = example.ParseFlags(args)
			}
			if err == nil {
				err = example.ValidateArgs(example.Flags().Args())
			}
			if err != nil || example.Name() != c.Name() {
				t.Errorf("%s: %q: %v", c.Name(), line, err)
			}
			parsed++
		}
		if parsed == 0 {
			t.Errorf("%s has no example", c.Name())
		}
	}
}

// A list of more than six flags has headings, and each flag stands under one.
func TestHelp_flags_haveHeadings(t *testing.T) {
	for _, c := range ours(rootCommand(nil)) {
		var bare []string
		flags, titles := 0, make(map[string]bool)
		c.Flags().VisitAll(func(f *pflag.Flag) {
			flags++
			if _, title := place(f); title == "Flags" {
				bare = append(bare, f.Name)
			} else {
				titles[title] = true
			}
		})
		if grouped := len(titles) > 0; (grouped || flags > 6) && (len(bare) > 0 || len(titles) < 2) {
			t.Errorf("%s: %d flags, headings %v, and none for %v", c.Name(), flags, titles, bare)
		}
	}
}

func TestHelp_commands_arePrinted(t *testing.T) {
	help := func(args ...string) string {
		var b bytes.Buffer
		root := rootCommand(nil)
		root.SetOut(&b)
		root.SetArgs(append(args, "--help"))
		if err := root.Execute(); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(b.String()) {
			if len([]rune(line)) > helpWidth+1 || strings.TrimRight(line, " \n") != strings.TrimRight(line, "\n") {
				t.Errorf("%v: too long, or blank at its end: %q", args, line)
			}
		}
		return b.String()
	}
	inOrder := func(text string, want ...string) {
		t.Helper()
		for _, w := range want {
			_, rest, found := strings.Cut(text, w)
			if !found {
				t.Fatalf("no %q in what follows:\n%s", w, text)
			}
			text = rest
		}
	}
	inOrder(help(), "Usage:\n  tailxds [command]\n", "\nRun:\n  healthcheck", "  serve", "\nLook:\n  doctor", "\nAct:\n  accept", "\nWrite and check:\n  bootstrap",
		"\nOther commands:\n  completion", "  help", "  version", "\nFlags:\n", "--version", "for more information about a command")
	inOrder(help("serve"), "file:PATH", "Usage:\n  tailxds serve [flags]\n", "\nExamples:\n", "\nWhere devices come from:\n      --provider", "--max-response-bytes",
		"\nJoining the tailnet:\n      --hostname", "env TS_ENVOY_AUTHKEY, then TS_AUTHKEY", "\nWhat is served, and to whom:\n      --config", "\nWhat a device means:\n",
		"\nWhat is held:\n", "\nAdmin pages and log:\n", "--log-format", "\nFlags:\n  -h, --help")
	inOrder(help("bootstrap"), "\nThe control plane:\n", "\nThe Envoy:\n", "\nWhat it reports:\n", "\nOutput:\n")
	if text := help(); strings.Contains(text, "drain-at-stop") || strings.Contains(text, "documents") {
		t.Errorf("what is hidden is shown:\n%s", text)
	}
}
