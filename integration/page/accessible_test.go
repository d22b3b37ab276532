package page_test

import (
	"encoding/json"
	"net/http"
	"os"
	"testing"

	"github.com/tailxds/tailxds/integration/repository"

	"github.com/chromedp/chromedp"

	"github.com/tailxds/tailxds/integration/browser"
)

// states are what the page can show, each held against axe-core's rules in every
// look.
var states = []struct {
	name   string
	world  world
	script string
	await  string
}{
	{"flow", world{regions: 3, each: 4, scenario: "held"}, ``, ``},
	{"server", world{regions: 3, each: 4, scenario: "held"}, `document.querySelector('#servers [data-name="iad-2"] button').click()`, `!document.querySelector('#inspector').hidden`},
	{"drained server", world{regions: 3, each: 4, scenario: "held"}, `document.querySelector('#servers [data-name="fra-4"] button').click()`, `!document.querySelector('#inspector').hidden`},
	{"drain", world{regions: 3, each: 4, scenario: "held"}, `document.querySelector('#servers [data-name="iad-1"] button').click(); document.querySelector('.acts button').click()`, `document.querySelectorAll('#ask .preview tr').length > 0`},
	{"accept", world{regions: 3, each: 4, scenario: "held"}, `document.querySelector('#held button').click()`, `document.querySelectorAll('#ask .preview tr').length > 0`},
	{"matrix", world{regions: 3, each: 4, scenario: "held"}, `document.querySelector('[value=matrix]').click()`, `document.querySelectorAll('#matrix td').length > 0`},
	{"large", world{regions: 8, each: 25, scenario: "held"}, ``, ``},
	{"view only", world{regions: 3, each: 4, scenario: "held", role: "view"}, ``, ``},
	{"silent", world{regions: 3, each: 4, scenario: "silent"}, ``, ``},
	{"empty", world{scenario: "calm"}, ``, ``},
	{"stale", world{regions: 3, each: 4, scenario: "held"}, ``, `document.body.dataset.live === 'stale'`},
}

// axe runs the rules. What it could not judge counts too, but for text in
// drawings and behind a dialog.
const axe = `(() => { const unsure = r => r.incomplete.filter(v => v.id === 'color-contrast').map(v => ({...v, nodes: v.nodes.filter(n => !/too short|non-text|image node|overlap|obscured/.test(n.failureSummary))})).filter(v => v.nodes.length);
	return axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})
	.then(r => JSON.stringify({rules: r.passes.length, found: [...r.violations, ...unsure(r)].map(v => ({id: v.id, impact: v.impact, help: v.help, nodes: v.nodes.slice(0, 4).map(n => n.html.slice(0, 120) + ' | ' + n.failureSummary.slice(0, 260))}))})) })()`

func TestPage_everyState_accessible(t *testing.T) {
	path, err := repository.Script(t.Context(), "axe")
	if err != nil {
		t.Fatal(err)
	}
	rules, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	servers := make(map[world]string)
	for _, state := range states {
		url, ok := servers[state.world]
		if !ok || state.name == "stale" {
			url = serve(t, state.world)
			servers[state.world] = url
		}
		tab := chromium.Tab(t)
		browser.Wide().Emulate(tab, "prefers-reduced-motion")
		tab.Do(chromedp.Navigate(url))
		tab.Until(browser.Lively)
		if state.script != "" {
			tab.Run(state.script)
		}
		if state.name == "stale" {
			stopWorld(t, url)
		}
		if state.await != "" {
			tab.Until(state.await)
		}
		tab.Run(string(rules)) // DevTools may do what the policy forbids the page
		for _, l := range looks {
			t.Run(state.name+"-"+l.Name, func(t *testing.T) {
				l.Emulate(tab.For(t), "prefers-reduced-motion")
				check(tab.For(t))
			})
		}
	}
}

func check(tab browser.Tab) {
	tab.T.Helper()
	var result struct {
		Rules int
		Found []struct {
			ID, Impact, Help string
			Nodes            []string
		}
	}
	if err := json.Unmarshal([]byte(browser.Eval[string](tab, axe)), &result); err != nil {
		tab.T.Fatal(err)
	}
	if result.Rules < 10 {
		tab.T.Errorf("only %d rules were judged", result.Rules)
	}
	for _, v := range result.Found {
		tab.T.Errorf("%s (%s): %s\n  %q", v.ID, v.Impact, v.Help, v.Nodes)
	}
}

// stopWorld has time stand still in a world.
func stopWorld(t *testing.T, url string) {
	t.Helper()
	answer, err := http.Get(url + "world/stop")
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
}
