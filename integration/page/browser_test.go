package page_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	cdpruntime "github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// theBrowser is started once for all tests; each test gets a tab of its own.
var theBrowser context.Context

// root is the repository's.
func root() string {
	_, here, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(here), "..", "..")
}

// script runs one of the repository's scripts that prints a path.
func script(name string, args ...string) (string, error) {
	out, err := exec.Command(filepath.Join(root(), "scripts", name), args...).Output()
	if err != nil {
		return "", fmt.Errorf("scripts/%s: %w", name, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// startBrowser starts Chromium without a screen.
func startBrowser() (context.Context, error) {
	path, err := script("browser")
	if err != nil {
		return nil, err
	}
	// As root, Chromium has no sandbox; it opens nothing but our own page.
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox)
	allocator, _ := chromedp.NewExecAllocator(context.Background(), options...)
	browser, _ := chromedp.NewContext(allocator)
	return browser, chromedp.Do(browser)
}

// tab is a browser's tab that fails the test on anything that the console says.
type tab struct {
	context.Context
	t *testing.T
}

func newTab(t *testing.T) tab {
	t.Helper()
	tab := quietTab(t)
	complain(tab, log.EntryAdded, func(e log.EventEntryAdded) string { return e.Entry.Text + " " + e.Entry.URL }) // what the page's policy refused, too
	complain(tab, cdpruntime.ExceptionThrown, func(e cdpruntime.EventExceptionThrown) string { return fmt.Sprint(e.ExceptionDetails) })
	complain(tab, cdpruntime.ConsoleAPICalled, func(e cdpruntime.EventConsoleAPICalled) string { return fmt.Sprint(e.Args) })
	return tab
}

// quietTab is for tests that want the browser to complain.
func quietTab(t *testing.T) tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(theBrowser)
	t.Cleanup(cancel)
	tab := tab{ctx, t}
	tab.do()
	return tab
}

// complain fails the test on each event.
func complain[E any](tab tab, event cdp.Event[E], words func(E) string) {
	events := chromedp.Events(tab, event)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e, err := range events {
			if err != nil {
				return // the tab is closed
			}
			tab.t.Errorf("the browser says: %s", words(e))
		}
	}()
	tab.t.Cleanup(func() { _ = chromedp.Cancel(tab); <-done })
}

func (tab tab) do(steps ...chromedp.Action[chromedp.Void]) {
	tab.t.Helper()
	if err := chromedp.Do(tab, steps...); err != nil {
		tab.t.Fatal(err)
	}
}

func get[T any](tab tab, action chromedp.Action[T]) T {
	tab.t.Helper()
	value, err := chromedp.Run(tab, action)
	if err != nil {
		tab.t.Fatal(err)
	}
	return value
}

func call[P, R any](tab tab, command cdp.Command[P, R], params P) R {
	tab.t.Helper()
	return get(tab, func(ctx context.Context, target *chromedp.Target) (R, error) {
		return cdp.Call(ctx, target, command, params)
	})
}

// eval runs a script in the page and waits for what it promises.
func eval[T any](tab tab, script string) T {
	tab.t.Helper()
	return get(tab, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
}

// run runs a script for what it does.
func (tab tab) run(script string) {
	tab.t.Helper()
	eval[chromedp.Void](tab, script)
}

func want[T comparable](tab tab, script string, want T) {
	tab.t.Helper()
	if have := eval[T](tab, script); have != want {
		tab.t.Errorf("%s is %v, want %v", script, have, want)
	}
}

// patience is how long a page may take for what must come; reaching it is a
// failure.
const patience = 60 * time.Second

// until waits for a script to say true.
func (tab tab) until(script string) {
	tab.t.Helper()
	_, err := chromedp.Run(tab, chromedp.Poll[bool](script, chromedp.WithPollingTimeout(patience)))
	if err != nil {
		tab.t.Fatalf("waiting for %s: %v; the page says:\n%s", script, err, eval[string](tab, `document.body.innerText`))
	}
}

// look is how the page is looked at.
type look struct {
	name          string
	width, height int64
	scheme        string
	mobile        bool
}

var looks = []look{
	{"wide-light", 1440, 900, "light", false},
	{"wide-dark", 1440, 900, "dark", false},
	{"phone-light", 390, 844, "light", true},
	{"phone-dark", 390, 844, "dark", true},
}

func (l look) emulate(tab tab, reduce ...string) {
	features := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: l.scheme}}
	for _, name := range reduce {
		features = append(features, &emulation.MediaFeature{Name: name, Value: "reduce"})
	}
	size := emulation.SetDeviceMetricsOverrideParams{Width: l.width, Height: l.height, DeviceScaleFactor: 1, Mobile: l.mobile}
	if l.mobile {
		size.DeviceScaleFactor = 2
	}
	call(tab, emulation.SetDeviceMetricsOverride, size)
	call(tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features})
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil { //nolint:gosec // pictures are for everybody
		t.Fatal(err)
	}
}
