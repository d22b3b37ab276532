package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"text/template"
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

// table is what people see on a terminal.
func table(w io.Writer, all []measured) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "MEASURE\tBESIDE\tTO REACH\tRATIO\tREACHED")
	for _, m := range all {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", m.what, m.beside, m.target, m.value, m.verdict())
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print the table: %w", err)
	}
	return nil
}

//go:embed benchmarks.md.tmpl
var form string

// writeDocument writes the page of the documentation.
func writeDocument(path string, all []measured) error {
	var rows, details strings.Builder
	for _, m := range all {
		fmt.Fprintf(&rows, "| %s | %s | %s | %s | %s |\n", m.what, m.beside, m.target, m.value, m.verdict())
		beside := ""
		if m.beside != "" {
			beside = ", beside " + m.beside
		}
		fmt.Fprintf(&details, "- **%s**%s: %s\n", m.what, beside, m.detail)
	}
	var page bytes.Buffer
	t, err := template.New("page").Parse(form)
	if err == nil {
		err = t.Execute(&page, map[string]string{
			"Date": time.Now().UTC().Format("2 January 2006, 15:04 UTC"), "Machine": machine(),
			"Rows": strings.TrimSpace(rows.String()), "Details": strings.TrimSpace(details.String()),
		})
	}
	if err == nil {
		err = os.WriteFile(path, page.Bytes(), 0o644)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
