package page_test

import (
	"fmt"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

func press(tab tab, keys ...string) {
	tab.t.Helper()
	for _, key := range keys {
		tab.do(chromedp.KeyEvent(key))
	}
}

// row is a server's in the traffic.
func row(name string) string { return `document.querySelector('#servers [data-name="` + name + `"]')` }

// ticks waits for so many new figures.
func ticks(tab tab, n int) {
	tab.t.Helper()
	tab.run(`window.ticks_ = 0; new MutationObserver(() => window.ticks_++).observe(document.querySelector('#k-rate'), {childList: true, characterData: true, subtree: true})`)
	tab.until(fmt.Sprintf(`window.ticks_ >= %d`, n))
}

func TestKeyboard(t *testing.T) {
	tab := open(t, world{regions: 8, each: 25, scenario: "trouble"})
	press(tab, kb.Tab)
	want(tab, `document.activeElement.className`, "skip")
	press(tab, kb.Enter, kb.Tab)
	want(tab, `document.activeElement.dataset.name`, "fra-1")
	press(tab, kb.ArrowDown, kb.ArrowDown)
	want(tab, `document.activeElement.dataset.name`, "fra-3")
	press(tab, kb.End)
	want(tab, `document.activeElement.dataset.name`, "jnb-25")
	press(tab, kb.Enter)
	want(tab, `document.activeElement.textContent`, "jnb-25")
	want(tab, `document.querySelector('#inspector').hidden`, false)
	press(tab, kb.Escape)
	want(tab, `document.querySelector('#inspector').hidden`, true)
	want(tab, `document.activeElement.dataset.name`, "jnb-25")

	// A round of the page takes few steps, however many servers there are.
	steps := 0
	for steps < 60 && eval[string](tab, `document.activeElement.className`) != "skip" {
		press(tab, kb.Tab)
		steps++
	}
	if steps > 30 {
		t.Errorf("Tab takes %d steps round the page", steps)
	}
}

func TestDrainAndRestoreAreConfirmed(t *testing.T) {
	tab := open(t, world{regions: 3, each: 4, scenario: "calm"})
	tab.run(row("iad-1") + `.querySelector('button').click()`)
	ask := `document.querySelector('.acts button').click()`
	tab.run(ask)
	want(tab, `document.activeElement.value`, "cancel") // what is safe has the focus
	press(tab, kb.Escape)
	want(tab, `document.querySelector('#ask').open`, false)
	tab.run(ask)
	press(tab, kb.Enter)
	want(tab, `document.querySelector('#ask').open`, false)
	want(tab, row("iad-1")+`.dataset.state`, "serving")

	tab.run(ask)
	tab.until(`document.querySelectorAll('#ask .preview tr').length === 3`)
	want(tab, `document.querySelector('#ask').textContent.includes('Signed as you@example.com')`, true)
	tab.run(`document.querySelector('#ask-do').click()`)
	tab.until(row("iad-1") + `.dataset.state === 'drained' && !document.querySelector('#ask').open`)
	tab.until(`document.querySelector('#say').textContent.includes('iad-1')`)
	tab.until(`document.querySelector('#k-serving').textContent === '11'`)
	tab.until(`/drained by you@example.com, until \d\d:\d\d/.test(document.querySelector('#inspector').textContent)`)

	tab.run(ask) // which is "Restore…" now
	want(tab, `document.querySelector('#ask-do').textContent`, "Restore")
	tab.run(`document.querySelector('#ask-do').click()`)
	tab.until(row("iad-1") + `.dataset.state === 'serving'`)
}

func TestAViewerFindsNothingToPress(t *testing.T) {
	tab := open(t, world{regions: 3, each: 4, scenario: "held", role: "view"})
	tab.run(row("iad-1") + `.querySelector('button').click()`)
	want(tab, `document.querySelector('#inspector h2').textContent`, "iad-1")
	want(tab, `document.querySelectorAll('.acts button').length`, 0)
	want(tab, `[...document.querySelectorAll('#held button')].every(b => b.hidden)`, true)
	want(tab, `document.querySelector('#viewer').textContent`, "you@example.com (view only)")
}

func TestWhatIsHeldIsAccepted(t *testing.T) {
	tab := open(t, world{regions: 3, each: 4, scenario: "held"})
	tab.run(`document.querySelector('#held button').click()`)
	tab.until(`document.querySelector('#ask .names').textContent.includes('iad-2')`)
	tab.run(`document.querySelector('#ask-do').click()`)
	tab.until(`!document.querySelector('#ask').open && document.querySelectorAll('#held li').length === 0`)
}

func TestServicesFilterAndMatrix(t *testing.T) {
	tab := open(t, world{regions: 8, each: 25, scenario: "trouble"})
	want(tab, `[...document.querySelectorAll('#services a')].map(a => a.getAttribute('href')).join()`, "?service=server,?service=hello,?service=search")
	want(tab, `document.querySelectorAll('#servers .tile').length`, 200)
	tab.run(`const f = document.querySelector('#filter'); f.value = 'gru-1'; f.dispatchEvent(new Event('input'))`)
	want(tab, `document.querySelectorAll('#servers tbody tr').length`, 11) // gru-1, and gru-10 to gru-19
	tab.run(`document.querySelector('[value=matrix]').click()`)
	tab.until(`document.querySelectorAll('#matrix tbody td').length === 72 && document.querySelector('#matrix tfoot td:last-child').textContent.length > 3`)
}

// Health is told in words, and by another sign than colour.
func TestHealthAsTheEnvoysSeeIt(t *testing.T) {
	tab := open(t, world{regions: 3, each: 4, scenario: "trouble"})
	want(tab, row("nrt-2")+`.querySelector('.why').textContent`, "12 of 12 say unhealthy")
	want(tab, row("nrt-2")+`.querySelector('use').getAttribute('href')`, "#i-rejected")
	want(tab, row("nrt-2")+`.querySelector('th').textContent`, "nrt-2, serving, 12 of 12 say unhealthy, has a problem")
	want(tab, `document.querySelector('#k-serving-sub').textContent`, "1 unhealthy, 1 drained, 1 offline")
	want(tab, `[...document.querySelectorAll('.problem')].every(p => p.querySelector('[data-f=mend]').textContent.length > 5)`, true)
}

func TestItSaysWhenItIsStale(t *testing.T) {
	url := serve(t, world{regions: 3, each: 4, scenario: "calm"})
	tab := newTab(t)
	tab.do(chromedp.Navigate(url))
	tab.until(lively)
	stopWorld(t, url)
	tab.until(`document.body.dataset.live === 'stale' && document.querySelector('#notices').textContent.includes('has not been heard of')`)
}

func TestItSaysWhenNoEnvoyReports(t *testing.T) {
	tab := open(t, world{regions: 3, each: 4, scenario: "silent"})
	want(tab, `document.querySelector('#notices').textContent.includes('No Envoy reports')`, true)
	want(tab, `document.querySelector('#k-rate').textContent`, "–")
	want(tab, row("iad-1")+`.querySelector('.share').textContent`, "– %")
}

// Nothing moves for those who want it still.
func TestReducedMotion(t *testing.T) {
	tab := open(t, world{regions: 3, each: 4, scenario: "calm"})
	// The browser's own driver asks for frames, too.
	tab.run(`window.frames_ = 0; const real = requestAnimationFrame; window.requestAnimationFrame = f => { if (new Error().stack.includes('bands.js')) window.frames_++; return real(f) }`)
	ticks(tab, 2)
	want(tab, `window.frames_`, 0)
	looks[0].emulate(tab) // and moves for the others
	tab.until(`window.frames_ > 5`)
}

// The page could not run, or load, what somebody slips into it.
func TestContentPolicy(t *testing.T) {
	url := serve(t, world{regions: 3, each: 4, scenario: "calm"})
	tab := quietTab(t) // what it says is expected
	tab.do(chromedp.Navigate(url))
	want(tab, `(() => { try { document.body.innerHTML = '<b>x</b>'; return 'written' } catch (e) { return e.name } })()`, "TypeError")
	for directive, act := range map[string]string{
		"style-src-attr": `const d = document.createElement('div'); d.setAttribute('style', 'color: red'); document.body.append(d)`,
		"img-src":        `new Image().src = 'http://127.0.0.2:1/x.png'`,
		"connect-src":    `fetch('http://127.0.0.2:1/').catch(() => 0)`,
	} {
		want(tab, `new Promise(done => { document.addEventListener('securitypolicyviolation', e => done(e.effectiveDirective), {once: true}); `+act+` })`, directive)
	}
}

// 200 servers cost the browser no more after a while than at first.
func TestManyServers(t *testing.T) {
	tab := open(t, world{regions: 8, each: 25, scenario: "trouble"})
	looks[0].emulate(tab)
	tab.run(`window.worst_ = 0; new PerformanceObserver(l => { for (const e of l.getEntries()) window.worst_ = Math.max(window.worst_, e.duration) }).observe({type: 'longtask'})`)
	ticks(tab, 4)
	t.Logf("the longest task over 50 ms took %.0f ms", eval[float64](tab, `window.worst_`))
	nodes := eval[int](tab, `document.querySelectorAll('*').length`)
	ticks(tab, 3)
	if after := eval[int](tab, `document.querySelectorAll('*').length`); after > nodes+20 {
		t.Errorf("the page grows: %d elements, and then %d", nodes, after)
	}
}
