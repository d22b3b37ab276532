package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// measured is a row with its figure.
type measured struct {
	row
	figure
}

func (m measured) verdict() string {
	if m.ok {
		return "yes"
	}
	return "no"
}

// table prints when and on what was measured, and the figures as a table of
// Markdown, which docs/benchmarks.md quotes.
func table(w io.Writer, all []measured) error {
	fmt.Fprintf(w, "%s, %s.\n\n", time.Now().UTC().Format("2 January 2006, 15:04 UTC"), machine())
	t := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	fmt.Fprintln(t, "| measure\t| beside\t| to reach\t| measured\t| reached\t|")
	fmt.Fprintln(t, "|---\t|---\t|---\t|---\t|---\t|")
	for _, m := range all {
		fmt.Fprintf(t, "| %s\t| %s\t| %s\t| %s\t| %s\t|\n", m.what, m.beside, m.target, m.value, m.verdict())
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print the table: %w", err)
	}
	return nil
}
