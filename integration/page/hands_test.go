package page_test

import (
	"fmt"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/tailxds/tailxds/integration/browser"
)

func press(tab browser.Tab, keys ...string) {
	tab.T.Helper()
	for _, key := range keys {
		tab.Do(chromedp.KeyEvent(key))
	}
}

// ticks waits for so many new figures.
func ticks(tab browser.Tab, n int) {
	tab.T.Helper()
	tab.Run(`window.ticks_ = 0; new MutationObserver(() => window.ticks_++).observe(document.querySelector('#k-rate'), {childList: true, characterData: true, subtree: true})`)
	tab.Until(fmt.Sprintf(`window.ticks_ >= %d`, n))
}

func TestPage_keyboard_reachesEverything(t *testing.T) {
	tab := open(t, world{regions: 8, each: 25, scenario: "trouble"})
	press(tab, kb.Tab)
	browser.Want(tab, `document.activeElement.className`, "skip")
	press(tab, kb.Enter, kb.Tab)
	browser.Want(tab, `document.activeElement.dataset.name`, "fra-1")
	press(tab, kb.ArrowDown, kb.ArrowDown)
	browser.Want(tab, `document.activeElement.dataset.name`, "fra-3")
	press(tab, kb.End)
	browser.Want(tab, `document.activeElement.dataset.name`, "jnb-25")
	press(tab, kb.Enter)
	browser.Want(tab, `document.activeElement.textContent`, "jnb-25")
	browser.Want(tab, `document.querySelector('#inspector').hidden`, false)
	press(tab, kb.Escape)
	browser.Want(tab, `document.querySelector('#inspector').hidden`, true)
	browser.Want(tab, `document.activeElement.dataset.name`, "jnb-25")

	// A round of the page takes few steps, however many servers there are.
	steps := 0
	for steps < 60 && browser.Eval[string](tab, `document.activeElement.className`) != "skip" {
		press(tab, kb.Tab)
		steps++
	}
	if steps > 30 {
		t.Errorf("Tab takes %d steps round the page", steps)
	}
}

func TestPage_drainAndRestore_askForConfirmation(t *testing.T) {
	tab := open(t, world{regions: 3, each: 4, scenario: "calm"})
	tab.Run(browser.Row("iad-1") + `.querySelector('button').click()`)
	ask := `document.querySelector('.acts button').click()`
	tab.Run(ask)
	browser.Want(tab, `document.activeElement.value`, "cancel") // what is safe has the focus
	press(tab, kb.Escape)
	browser.Want(tab, `document.querySelector('#ask').open`, false)
	tab.Run(ask)
	press(tab, kb.Enter)
	browser.Want(tab, `document.querySelector('#ask').open`, false)
	browser.Want(tab, browser.Row("iad-1")+`.dataset.state`, "serving")

	tab.Run(ask)
	tab.Until(`document.querySelectorAll('#ask .preview tr').length === 3`)
	browser.Want(tab, `document.querySelector('#ask').textContent.includes('Signed as you@example.com')`, true)
	tab.Run(`document.querySelector('#ask-do').click()`)
	tab.Until(browser.Row("iad-1") + `.dataset.state === 'drained' && !document.querySelector('#ask').open`)
	tab.Until(`document.querySelector('#say').textContent.includes('iad-1')`)
	tab.Until(`document.querySelector('#k-serving').textContent === '11'`)
	tab.Until(`/drained by you@example.com, until (\d{4}-\d\d-\d\d )?\d\d:\d\d/.test(document.querySelector('#inspector').textContent)`)

	tab.Run(ask) // which is "Restore…" now
	browser.Want(tab, `document.querySelector('#ask-do').textContent`, "Restore")
	tab.Run(`document.querySelector('#ask-do').click()`)
	tab.Until(browser.Row("iad-1") + `.dataset.state === 'serving'`)
}

func TestPage_viewer_hasNoActions(t *testing.T) {
	tab := open(t, world{regions: 3, each: 4, scenario: "held", role: "view"})
	tab.Run(browser.Row("iad-1") + `.querySelector('button').click()`)
	browser.Want(tab, `document.querySelector('#inspector h2').textContent`, "iad-1")
	browser.Want(tab, `document.querySelectorAll('.acts button').length`, 0)
	browser.Want(tab, `[...document.querySelectorAll('#held button')].every(b => b.hidden)`, true)
	browser.Want(tab, `document.querySelector('#viewer').textContent`, "you@example.com (view only)")
}

func TestPage_madeUpRemovalHeldBack_isAccepted(t *testing.T) {
	tab := open(t, world{regions: 3, each: 4, scenario: "held"})
	tab.Run(`document.querySelector('#held button').click()`)
	tab.Until(`document.querySelector('#ask .names').textContent.includes('iad-2')`)
	tab.Run(`document.querySelector('#ask-do').click()`)
	tab.Until(`!document.querySelector('#ask').open && document.querySelectorAll('#held li').length === 0`)
}

func TestPage_severalServices_filterAndMatrix(t *testing.T) {
	tab := open(t, world{regions: 8, each: 25, scenario: "trouble"})
	browser.Want(tab, `[...document.querySelectorAll('#services a')].map(a => a.getAttribute('href')).join()`, "?service=server,?service=hello,?service=search")
	browser.Want(tab, `document.querySelectorAll('#servers .tile').length`, 200)
	tab.Run(`const f = document.querySelector('#filter'); f.value = 'gru-1'; f.dispatchEvent(new Event('input'))`)
	browser.Want(tab, `document.querySelectorAll('#servers tbody tr').length`, 11) // gru-1, and gru-10 to gru-19
	tab.Run(`document.querySelector('[value=matrix]').click()`)
	tab.Until(`document.querySelectorAll('#matrix tbody td').length === 72 && document.querySelector('#matrix tfoot td:last-child').textContent.length > 3`)
}

// Health is told in words, and by another sign than colour.
func TestPage_health_asEnvoysReport(t *testing.T) {
	tab := open(t, world{regions: 3, each: 4, scenario: "trouble"})
	browser.Want(tab, browser.Row("nrt-2")+`.querySelector('.why').textContent`, "12 of 12 say unhealthy")
	browser.Want(tab, browser.Row("nrt-2")+`.querySelector('use').getAttribute('href')`, "#i-rejected")
	browser.Want(tab, browser.Row("nrt-2")+`.querySelector('th').textContent`, "nrt-2, serving, 12 of 12 say unhealthy, has a problem")
	browser.Want(tab, `document.querySelector('#k-serving-sub').textContent`, "1 unhealthy, 1 drained, 1 offline")
	browser.Want(tab, `[...document.querySelectorAll('.problem')].every(p => p.querySelector('[data-f=mend]').textContent.length > 5)`, true)
}

func TestPage_connectionLost_saysStale(t *testing.T) {
	url := serve(t, world{regions: 3, each: 4, scenario: "calm"})
	tab := chromium.Tab(t)
	tab.Do(chromedp.Navigate(url))
	tab.Until(browser.Lively)
	stopWorld(t, url)
	tab.Until(`document.body.dataset.live === 'stale' && document.querySelector('#notices').textContent.includes('has not been heard of')`)
}

func TestPage_noReports_saysSo(t *testing.T) {
	tab := open(t, world{regions: 3, each: 4, scenario: "silent"})
	browser.Want(tab, `document.querySelector('#notices').textContent.includes('No Envoy reports')`, true)
	browser.Want(tab, `document.querySelector('#k-rate').textContent`, "–")
	browser.Want(tab, browser.Row("iad-1")+`.querySelector('.share').textContent`, "– %")
	// No figure of traffic is a zero: neither of servers and Envoys, nor of regions, nor in the matrix or the inspector.
	tab.Run(`document.querySelector('[value=matrix]').click()`)
	tab.Until(`document.querySelectorAll('#matrix td').length > 0`)
	tab.Run(browser.Row("iad-1") + `.querySelector('button').click()`)
	tab.Until(`!document.querySelector('#inspector').hidden`)
	for where, figures := range map[string]string{
		"the top":   `#k-rate, #k-ok, #k-p50, #k-p99, #k-cross, #k-gap, #k-rate-sub`,
		"regions":   `#callers [data-f=rate], #callers [data-f=p50], #callers [data-f=p99], #servers [data-f=rate], #servers .share`,
		"matrix":    `#matrix td`,
		"inspector": `#inspector .called .num`,
	} {
		found := browser.Eval[string](tab, `[...document.querySelectorAll('`+figures+`')].map(e => e.textContent).filter(s => s && !/^–( %)?$/.test(s)).join(', ')`)
		if n := browser.Eval[int](tab, `document.querySelectorAll('`+figures+`').length`); n == 0 || found != "" {
			t.Errorf("%s: of %d figures these are no dashes: %s", where, n, found)
		}
	}
}

// Nothing moves for those who want it still.
func TestPage_reducedMotion_animatesNothing(t *testing.T) {
	tab := open(t, world{regions: 3, each: 4, scenario: "calm"})
	// The browser's own driver asks for frames, too.
	tab.Run(`window.frames_ = 0; const real = requestAnimationFrame; window.requestAnimationFrame = f => { if (new Error().stack.includes('bands.js')) window.frames_++; return real(f) }`)
	ticks(tab, 2)
	browser.Want(tab, `window.frames_`, 0)
	browser.Wide().Emulate(tab) // and moves for the others
	tab.Until(`window.frames_ > 5`)
}

// The page could not run, or load, what somebody slips into it.
func TestPage_contentPolicy_blocksInjected(t *testing.T) {
	url := serve(t, world{regions: 3, each: 4, scenario: "calm"})
	tab := chromium.Quiet(t) // what it says is expected
	tab.Do(chromedp.Navigate(url))
	browser.Want(tab, `(() => { try { document.body.innerHTML = '<b>x</b>'; return 'written' } catch (e) { return e.name } })()`, "TypeError")
	for directive, act := range map[string]string{
		"style-src-attr": `const d = document.createElement('div'); d.setAttribute('style', 'color: red'); document.body.append(d)`,
		"img-src":        `new Image().src = 'http://127.0.0.2:1/x.png'`,
		"connect-src":    `fetch('http://127.0.0.2:1/').catch(() => 0)`,
	} {
		browser.Want(tab, `new Promise(done => { document.addEventListener('securitypolicyviolation', e => done(e.effectiveDirective), {once: true}); `+act+` })`, directive)
	}
}

// 200 servers cost the browser no more after a while than at first.
func TestPage_manyServers_costsNoMoreAfterAWhile(t *testing.T) {
	tab := open(t, world{regions: 8, each: 25, scenario: "trouble"})
	browser.Wide().Emulate(tab)
	tab.Run(`window.worst_ = 0; new PerformanceObserver(l => { for (const e of l.getEntries()) window.worst_ = Math.max(window.worst_, e.duration) }).observe({type: 'longtask'})`)
	ticks(tab, 4)
	t.Logf("the longest task over 50 ms took %.0f ms", browser.Eval[float64](tab, `window.worst_`))
	nodes := browser.Eval[int](tab, `document.querySelectorAll('*').length`)
	ticks(tab, 3)
	if after := browser.Eval[int](tab, `document.querySelectorAll('*').length`); after > nodes+20 {
		t.Errorf("the page grows: %d elements, and then %d", nodes, after)
	}
}
