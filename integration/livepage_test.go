package integration_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/tailxds/tailxds/integration/browser"
	"github.com/tailxds/tailxds/integration/engine"
	"github.com/tailxds/tailxds/integration/shares"
)

// livePage is the lab's page as this machine's browser shows it, by way of the
// forwarder.
type livePage struct {
	browser.Tab
	url string
}

func (w *walk) livePage(ctx context.Context, t *testing.T) livePage {
	t.Helper()
	p := livePage{w.chromium.Tab(t), fmt.Sprintf("http://%s:9090/", edgeAddress(ctx, t, w.Lab, "page"))}
	p.Open(p.url, browser.Wide())
	return p
}

const (
	// window is how many seconds the page's figures are of: two reports of each Envoy.
	window = 10
	// enough requests in it tell shares from others; 1,200 enter.
	enough = 1_000
)

// rates are the requests a second that the page shows: by server, of all, and how
// many of them cross regions.
func (p livePage) rates() (byServer map[string]float64, all, crossing float64) {
	type row struct {
		Name  string
		Share float64
	}
	rows := browser.Eval[[]row](p.Tab, `[...document.querySelectorAll('#servers tbody tr')].map(r => ({name: r.dataset.name, share: parseFloat(r.querySelector('.share').textContent) || 0}))`)
	figure := func(selector string) float64 { return browser.Eval[float64](p.Tab, browser.Number(selector)+" || 0") } // a dash is none
	all = figure("#k-rate")
	byServer = make(map[string]float64)
	for _, r := range rows {
		byServer[r.Name] = all * r.Share / 100
	}
	return byServer, all, all * figure("#k-cross") / 100
}

// shows waits until the page's shares are those, as far as what it counted can
// tell, and returns nil.
func (p livePage) shows(ctx context.Context, t *testing.T, want shares.Shares) {
	t.Helper()
	await(ctx, t, func() error {
		rates, all, _ := p.rates()
		if all*window < enough {
			return fmt.Errorf("the page shows %v requests a second, which tells too little", all)
		}
		return shares.Check(counted(rates), want)
	})
	// What is expected is not measured, so that it is just this.
	for server, weight := range want {
		expected := browser.Eval[float64](p.Tab, fmt.Sprintf(`parseFloat(%s.querySelector('[data-f=expected]').textContent)`, browser.Row(server)))
		if math.Abs(expected-100*weight/want.Sum()) > 0.06 {
			t.Errorf("the page expects %v %% of the requests at %s, not %.1f", expected, server, 100*weight/want.Sum())
		}
	}
}

// crosses waits until the page's part of the requests that cross regions is that.
func (p livePage) crosses(ctx context.Context, t *testing.T, part float64) {
	t.Helper()
	await(ctx, t, func() error {
		_, all, crossing := p.rates()
		return shares.Check(counted(map[string]float64{"cross": crossing, "stay": all - crossing}), shares.Shares{"cross": part, "stay": 1 - part})
	})
}

// counted is what rates come from.
func counted(rates map[string]float64) shares.Tally {
	tally := shares.Tally{Counts: map[string]int{}}
	for key, rate := range rates {
		tally.Counts[key] = int(math.Round(rate * window))
	}
	return tally
}

// thePageShowsWhatTheClientCounted looks at the lab's page in a browser while
// requests flow: who has figures, what was counted, a drain, a death.
func thePageShowsWhatTheClientCounted(ctx context.Context, t *testing.T, w *walk) {
	page := w.livePage(ctx, t)
	page.mayOnlyLook(ctx, t)

	// Nothing flows, and each Envoy says so itself.
	page.Until(`document.querySelector('#k-rate').textContent === '0'`)
	page.Until(`[...document.querySelectorAll('#callers tbody tr')].filter(r => r.querySelector('[data-f=rate]').textContent === '0').length === 5`)
	browser.Want(page.Tab, `document.querySelectorAll('#callers tbody tr').length`, 5)
	browser.Want(page.Tab, `document.querySelector('#problems').textContent.includes('reports nothing')`, false)
	w.countsAsTheClientDoes(ctx, t, page)

	stop := w.enters(ctx, t)
	w.drainAndKill(ctx, t, page)
	stop(t)
}

// countsAsTheClientDoes sends a number of requests into both regions. The page's
// history has just them, and its shares are those of what it counted.
func (w *walk) countsAsTheClientDoes(ctx context.Context, t *testing.T, page livePage) {
	t.Helper()
	since, before := page.quietSince(ctx, t), w.requests(ctx, t)
	const seconds = 25 // until all Envoys have told of a whole window, and some more
	tallies := make([]shares.Tally, len(entries))
	var group errgroup.Group
	for i, entry := range entries {
		group.Go(func() (err error) {
			tallies[i], err = w.Ask(ctx, envoy(entry.device), seconds*entry.rate, fmt.Sprintf("--rate=%d", entry.rate))
			return err
		})
	}
	page.shows(ctx, t, bothRegions)
	// By the weights two thirds leave west, and one third leaves east.
	page.crosses(ctx, t, (20*2./3+100*1./3)/120)
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	all := shares.Tally{Counts: map[string]int{}}
	for _, tally := range tallies {
		all.Add(tally)
	}
	if err := shares.Check(all.By(shares.Host), bothRegions); err != nil {
		t.Error(err)
	}
	// What an Envoy tries again is two requests to servers, and one to the client. On
	// servers that are well that is rare.
	again := w.requests(ctx, t) - before - all.Answered()
	if again < 0 || again > all.Answered()/100 {
		t.Errorf("Envoys have sent %d requests more than the client counted", again)
	}
	await(ctx, t, func() error { return sameCount(ctx, page.url, since, all.By(shares.Region), again) })
}

// quietSince waits until the page's history has two steps without a request, and
// returns when they began. A report counts in all steps that it is of, so that what
// is sent from now on counts there or later, and nothing else does.
func (p livePage) quietSince(ctx context.Context, t *testing.T) (milliseconds int64) {
	t.Helper()
	await(ctx, t, func() error {
		past, err := browser.ReadPast(ctx, p.url)
		if err != nil {
			return err
		}
		n := len(past.Rate)
		if n < 2 || past.Rate[n-1] > 0 || past.Rate[n-2] > 0 {
			return fmt.Errorf("in the last steps there were %v requests a second", past.Rate[max(n-2, 0):])
		}
		milliseconds = past.Start + int64(n-2)*past.Step
		return nil
	})
	return milliseconds
}

// requests are those that the Envoys where requests enter have sent to servers. It
// is read from /clusters: to ask for /stats takes counts from what they report.
func (w *walk) requests(ctx context.Context, t *testing.T) (sum int) {
	t.Helper()
	for _, entry := range entries {
		s := w.sent(ctx, t, entry.device)
		sum += s.here + s.away
	}
	return sum
}

// sameCount returns nil if the page's history has just the requests of a tally
// since a time, and those that were sent again, but for what it rounds: rates to a
// tenth, shares to a thousandth.
func sameCount(ctx context.Context, url string, since int64, tally shares.Tally, again int) error {
	past, err := browser.ReadPast(ctx, url)
	if err != nil {
		return err
	}
	all, byRegion := past.Requests(since)
	step := float64(past.Step) / 1000
	steps := float64(past.Start+int64(len(past.Rate))*past.Step-since) / float64(past.Step)
	rounded := 0.05 * step * steps
	if math.Abs(all-float64(tally.Answered()+again)) > rounded+1 {
		return fmt.Errorf("the page's history has %.1f requests, the client counted %d, and Envoys sent %v again; the last steps had %v requests a second",
			all, tally.Answered(), again, past.Rate[max(0, len(past.Rate)-30):])
	}
	for region, n := range tally.Counts {
		if math.Abs(byRegion[region]-float64(n)) > rounded+0.0005*all+1+float64(again) {
			return fmt.Errorf("the page's history has %.1f requests to %s, the client counted %d", byRegion[region], region, n)
		}
	}
	return nil
}

// drainAndKill has an operator drain a server, and kills another, while requests
// flow; then both come back. What the page says of them is in words and in figures.
func (w *walk) drainAndKill(ctx context.Context, t *testing.T, page livePage) {
	t.Helper()
	const drained, dead = "west-2", "east-2"
	for _, act := range [][]string{
		{"exec", w.Container("control-plane"), "tailxds", "drain", drained, "--for", "1h"}, {"kill", w.Container(dead + "-server")},
	} {
		if _, err := engine.Docker(ctx, act...); err != nil {
			t.Fatal(err)
		}
	}
	page.Until(browser.Row(drained) + `.dataset.state === 'drained'`)
	page.Until(browser.Row(dead) + `.dataset.health === 'sick'`)
	// With half of its servers sick, east keeps 70 % of its weight.
	page.shows(ctx, t, shares.Shares{"west-1": 1, "east-1": 2.8})
	for script, words := range map[string]string{
		browser.Row(drained) + `.querySelector('.why').textContent`:  "drained, by an operator",
		browser.Row(drained) + `.querySelector('.rate').textContent`: "",
		browser.Row(dead) + `.querySelector('.why').textContent`:     "5 of 5 say unhealthy",
		browser.Row(dead) + `.querySelector('.rate').textContent`:    "0",
		`document.querySelector('#k-serving-sub').textContent`:       "1 unhealthy, 1 drained",
	} {
		browser.Want(page.Tab, script, words)
	}
	problems := browser.Eval[string](page.Tab, `document.querySelector('#problems').innerText`)
	if !strings.Contains(problems, dead+" is unhealthy") || !strings.Contains(problems, "Mend: ") {
		t.Errorf("the page's problems are\n%s", problems)
	}
	if changes := browser.Eval[string](page.Tab, `document.querySelector('#changes').innerText`); !strings.Contains(changes, drained+" is drained by ") {
		t.Errorf("the page's changes are\n%s", changes)
	}

	for _, act := range [][]string{
		{"start", w.Container(dead + "-server")}, {"exec", w.Container("control-plane"), "tailxds", "restore", drained},
	} {
		if _, err := engine.Docker(ctx, act...); err != nil {
			t.Fatal(err)
		}
	}
	page.shows(ctx, t, bothRegions)
	page.Until(`[...document.querySelectorAll('#servers tbody tr')].every(r => r.dataset.state === 'serving' && r.dataset.health === undefined)`)
}

// mayOnlyLook holds that whoever is not on the control plane's own loopback finds
// nothing to press, and is refused what a page's request would ask; and that nobody's
// page of another name or site gets anything.
func (p livePage) mayOnlyLook(ctx context.Context, t *testing.T) {
	t.Helper()
	p.Run(browser.Row("west-1") + `.querySelector('button').click()`)
	browser.Want(p.Tab, `document.querySelector('#inspector h2').textContent`, "west-1")
	browser.Want(p.Tab, `document.querySelectorAll('.acts button').length`, 0)
	browser.Want(p.Tab, `document.querySelector('#viewer').textContent.endsWith('(view only)')`, true)
	for _, asked := range []struct {
		method, path string
		as           func(*http.Request)
		want         int
	}{
		{http.MethodPost, "act/drain", func(*http.Request) {}, http.StatusForbidden},
		{http.MethodPost, "act/drain", func(r *http.Request) { r.Header.Set("Origin", strings.TrimSuffix(p.url, "/")) }, http.StatusForbidden},
		{http.MethodGet, "live", func(r *http.Request) { r.Host = "evil.example:9090" }, http.StatusMisdirectedRequest},
		{http.MethodGet, "live", func(r *http.Request) { r.Header.Set("Origin", "http://evil.example") }, http.StatusForbidden},
	} {
		request, err := http.NewRequestWithContext(ctx, asked.method, p.url+asked.path, strings.NewReader(`{"device": "west-1"}`))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		asked.as(request)
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(errors.Join(fmt.Errorf("%s %s", asked.method, asked.path), err))
		}
		_ = answer.Body.Close()
		if answer.StatusCode != asked.want {
			t.Errorf("%s %s of %s from %q is answered by %s, not %d", asked.method, asked.path, request.Host, request.Header.Get("Origin"), answer.Status, asked.want)
		}
	}
	if drained := browser.Eval[[]string](p.Tab, `[...document.querySelectorAll('#servers tr[data-state=drained]')].map(r => r.dataset.name)`); slices.Contains(drained, "west-1") {
		t.Error("west-1 is drained by somebody who may only look")
	}
}
