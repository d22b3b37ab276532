package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tailxds": func() {
		if err := run(); err != nil {
			fmt.Fprintln(os.Stderr, "tailxds:", err)
			os.Exit(1) //nolint:forbidigo // this stands for main
		}
	}})
}

// The command line, as its users see it.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script"})
}
