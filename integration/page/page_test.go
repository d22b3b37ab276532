// Package page_test holds the live page against a real browser: on a made-up
// world for looks, sizes and hands, and on real Envoys for what it says.
package page_test

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/tailxds/tailxds/integration/repository"

	"github.com/tailxds/tailxds/integration/browser"
)

// worldProgram shows made-up tailnets, built once; chromium shows the pages.
var (
	worldProgram string
	chromium     *browser.Browser
)

func TestMain(m *testing.M) { os.Exit(tests(m)) } //nolint:forbidigo // a main of its own

func tests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "tailxds-page")
	if err == nil {
		defer func() { _ = os.RemoveAll(dir) }()
		err = prepare(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "the page can't be tested:", err)
		return 1
	}
	defer func() { _ = chromium.Close() }()
	return m.Run()
}

// prepare builds what the tests run, and starts the browser.
func prepare(dir string) error {
	worldProgram = filepath.Join(dir, "world")
	err := repository.Build(context.Background(), dir, "./internal/dashboard/world")
	if err != nil {
		return err
	}
	chromium, err = browser.Start()
	return err
}

// world is a made-up tailnet: regions, servers in each, what happens there.
type world struct {
	regions, each  int
	scenario, role string
	long           bool // names of servers
}

// serve shows a world until the test ends. It returns its page's address.
func serve(t *testing.T, w world) (url string) {
	t.Helper()
	cmd := exec.Command(worldProgram, "-address", "127.0.0.1:0", "-regions", strconv.Itoa(w.regions), "-each", strconv.Itoa(w.each),
		"-scenario", w.scenario, "-role", cmp.Or(w.role, "operate"), fmt.Sprintf("-long=%t", w.long))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	url, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(url)
}

// open opens a world at rest.
func open(t *testing.T, w world) browser.Tab {
	t.Helper()
	url := serve(t, w) // it outlives its tab
	tab := chromium.Tab(t)
	tab.Open(url, browser.Wide())
	return tab
}
