package page_test

import (
	"testing"

	"github.com/tailxds/tailxds/integration/browser"
)

// cut are the words about a state that are not seen to their end, and the ends of
// names: hosts of one kind differ there.
const cut = `(() => {
	const shown = e => e.offsetParent && e.textContent;
	const within = e => { const r = e.getBoundingClientRect(); return r.left >= 0 && r.right <= innerWidth + 1 };
	const whole = e => within(e) && e.scrollWidth <= e.clientWidth + 1 && e.scrollHeight <= e.clientHeight + 1;
	const words = [...document.querySelectorAll('.why, .stat .sub, .group-head .sub, .notice p, .problem p, .services a, #k-sync-sub')];
	const ends = [...document.querySelectorAll('#servers .name [data-f=label] > :last-child')];
	const inside = e => e.getBoundingClientRect().right <= e.closest('th').getBoundingClientRect().right + 1 && (e.className !== 'head' || e.scrollWidth <= e.clientWidth + 1);
	return [...words.filter(e => shown(e) && !whole(e)), ...ends.filter(e => shown(e) && !(within(e) && inside(e)))].map(e => e.textContent).join(' | ')
})()`

// What tells a state is told in full at every width, with many servers, and with
// long names. The page never scrolls sideways.
func TestPage_anyWidth_cutsNoState(t *testing.T) {
	for name, test := range map[string]struct {
		world  world
		filter string
		says   int // rows that say something
	}{
		"some":       {world{regions: 3, each: 4, scenario: "held"}, "", 3},
		"many":       {world{regions: 4, each: 8, scenario: "held"}, "", 3},
		"long names": {world{regions: 4, each: 8, scenario: "held", long: true}, "", 3},
		"200":        {world{regions: 8, each: 25, scenario: "trouble", long: true}, "nrt", 2},
		"silent":     {world{regions: 3, each: 4, scenario: "silent", long: true}, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			tab := open(t, test.world)
			tab.Run(`const f = document.querySelector('#filter'); f.value = '` + test.filter + `'; f.dispatchEvent(new Event('input'))`)
			for _, l := range append(looks, browser.Look{Name: "narrow", Width: 320, Height: 700, Scheme: "light", Mobile: true}) {
				l.Emulate(tab, "prefers-reduced-motion")
				tab.Run(`new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))`)
				browser.Want(tab, `[...document.querySelectorAll('.why')].filter(e => e.textContent).length`, test.says)
				if words := browser.Eval[string](tab, cut); words != "" {
					t.Errorf("%s: cut: %s", l.Name, words)
				}
				browser.Want(tab, `document.documentElement.scrollWidth <= innerWidth`, true)
			}
		})
	}
}
