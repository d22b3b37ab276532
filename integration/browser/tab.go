package browser

import (
	"context"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// Tab is one that a test has open. What it can't do fails that test.
type Tab struct {
	context.Context //nolint:containedctx // that is what chromedp calls a tab
	T               *testing.T
}

// For is the same tab in a subtest.
func (tab Tab) For(t *testing.T) Tab { return Tab{tab.Context, t} }

// Open goes to a live page, looked at without what moves, and waits for its first figures.
func (tab Tab) Open(url string, look Look) {
	tab.T.Helper()
	look.Emulate(tab, "prefers-reduced-motion")
	tab.Do(chromedp.Navigate(url))
	tab.Until(Lively)
}

// Do does some steps.
func (tab Tab) Do(steps ...chromedp.Action[chromedp.Void]) {
	tab.T.Helper()
	if err := chromedp.Do(tab, steps...); err != nil {
		tab.T.Fatal(err)
	}
}

// Get is what an action returns.
func Get[T any](tab Tab, action chromedp.Action[T]) T {
	tab.T.Helper()
	value, err := chromedp.Run(tab, action)
	if err != nil {
		tab.T.Fatal(err)
	}
	return value
}

// Call is what a command of DevTools returns.
func Call[P, R any](tab Tab, command cdp.Command[P, R], params P) R {
	tab.T.Helper()
	return Get(tab, func(ctx context.Context, target *chromedp.Target) (R, error) {
		return cdp.Call(ctx, target, command, params)
	})
}

// Eval runs a script in the page and waits for what it promises.
func Eval[T any](tab Tab, script string) T {
	tab.T.Helper()
	return Get(tab, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
}

// Run runs a script for what it does.
func (tab Tab) Run(script string) {
	tab.T.Helper()
	Eval[chromedp.Void](tab, script)
}

// Want holds what a script says against what it should.
func Want[T comparable](tab Tab, script string, want T) {
	tab.T.Helper()
	if have := Eval[T](tab, script); have != want {
		tab.T.Errorf("%s is %v, want %v", script, have, want)
	}
}

// Patience is how long a page may take for what must come; reaching it is a
// failure.
const Patience = 60 * time.Second

// Until waits for a script to say true.
func (tab Tab) Until(script string) {
	tab.T.Helper()
	_, err := chromedp.Run(tab, chromedp.Poll[bool](script, chromedp.WithPollingTimeout(Patience)))
	if err != nil {
		tab.T.Fatalf("waiting for %s: %v; the page says:\n%s", script, err, Eval[string](tab, `document.body.innerText`))
	}
}

// Look is how a page is looked at.
type Look struct {
	Name          string
	Width, Height int64
	Scheme        string // light or dark
	Mobile        bool
}

// Looks are a desk and a phone, each by day and by night.
func Looks() []Look {
	return []Look{
		{"wide-light", 1440, 900, "light", false},
		{"wide-dark", 1440, 900, "dark", false},
		{"phone-light", 390, 844, "light", true},
		{"phone-dark", 390, 844, "dark", true},
	}
}

// Wide is a desk by day.
func Wide() Look { return Looks()[0] }

// Emulate has a tab look so, with what the reader wants less of.
func (l Look) Emulate(tab Tab, reduce ...string) {
	features := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: l.Scheme}}
	for _, name := range reduce {
		features = append(features, &emulation.MediaFeature{Name: name, Value: "reduce"})
	}
	size := emulation.SetDeviceMetricsOverrideParams{Width: l.Width, Height: l.Height, DeviceScaleFactor: 1, Mobile: l.Mobile}
	if l.Mobile {
		size.DeviceScaleFactor = 2
	}
	Call(tab, emulation.SetDeviceMetricsOverride, size)
	Call(tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features})
}
