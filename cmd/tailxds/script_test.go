package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tailxds": func() {
		os.Exit(exitStatus(os.Stderr, run())) //nolint:forbidigo // this stands for main
	}})
}

// The command line, as its users see it.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script"})
}
