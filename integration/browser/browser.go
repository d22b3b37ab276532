// Package browser holds pages against a real Chromium: it opens them, waits for
// what they must say, and fails a test on whatever the browser complains of.
package browser

import (
	"context"
	"fmt"
	"testing"

	"github.com/tailxds/tailxds/integration/repository"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	cdpruntime "github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// Browser is a Chromium without a screen. Each test opens tabs of its own.
type Browser struct {
	tab  func() (context.Context, context.CancelFunc)
	stop func() error
}

// Start starts Chromium, which scripts/browser finds or installs.
func Start() (*Browser, error) {
	path, err := repository.Script(context.Background(), "browser")
	if err != nil {
		return nil, err
	}
	// As root, Chromium has no sandbox; it opens nothing but our own page.
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox)
	allocator, _ := chromedp.NewExecAllocator(context.Background(), options...)
	browser, _ := chromedp.NewContext(allocator)
	if err := chromedp.Do(browser); err != nil {
		return nil, fmt.Errorf("starting %s: %w", path, err)
	}
	return &Browser{
		tab:  func() (context.Context, context.CancelFunc) { return chromedp.NewContext(browser) },
		stop: func() error { return chromedp.Cancel(browser) },
	}, nil
}

// Close ends Chromium.
func (b *Browser) Close() error {
	if err := b.stop(); err != nil {
		return fmt.Errorf("ending Chromium: %w", err)
	}
	return nil
}

// Tab opens a tab until the test ends, which fails on anything that its console says.
func (b *Browser) Tab(t *testing.T) Tab {
	t.Helper()
	tab := b.Quiet(t)
	complain(tab, log.EntryAdded, func(e log.EventEntryAdded) string { return e.Entry.Text + " " + e.Entry.URL }) // what the page's policy refused, too
	complain(tab, cdpruntime.ExceptionThrown, func(e cdpruntime.EventExceptionThrown) string { return fmt.Sprint(e.ExceptionDetails) })
	complain(tab, cdpruntime.ConsoleAPICalled, func(e cdpruntime.EventConsoleAPICalled) string { return fmt.Sprint(e.Args) })
	return tab
}

// Quiet opens a tab for a test that wants the browser to complain.
func (b *Browser) Quiet(t *testing.T) Tab {
	t.Helper()
	ctx, cancel := b.tab()
	t.Cleanup(cancel)
	tab := Tab{ctx, t}
	tab.Do()
	return tab
}

// complain fails the test on each event.
func complain[E any](tab Tab, event cdp.Event[E], words func(E) string) {
	events := chromedp.Events(tab, event)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e, err := range events {
			if err != nil {
				return // the tab is closed
			}
			tab.T.Errorf("the browser says: %s", words(e))
		}
	}()
	tab.T.Cleanup(func() { _ = chromedp.Cancel(tab); <-done })
}
