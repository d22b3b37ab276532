package page_test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/tailxds/tailxds/integration/repository"

	"github.com/chromedp/chromedp"

	"github.com/tailxds/tailxds/integration/browser"
)

var update = flag.Bool("update", false, "make the pictures in docs/pictures anew")

var looks = browser.Looks()

// shots are pictures of the page, each in some looks.
var shots = []struct {
	name   string
	world  world
	script string
	looks  []browser.Look
}{
	{"flow", world{regions: 3, each: 4, scenario: "held"}, "", looks},
	{"server", world{regions: 3, each: 4, scenario: "trouble"}, `document.querySelector('#servers [data-name="iad-2"] button').click()`, looks},
	{"drain", world{regions: 3, each: 4, scenario: "trouble"}, `document.querySelector('#servers [data-name="iad-1"] button').click(); document.querySelector('.acts button').click()`, looks[:1]},
	{"matrix", world{regions: 3, each: 4, scenario: "trouble"}, `document.querySelector('[value=matrix]').click()`, looks[:1]},
	{"large", world{regions: 8, each: 25, scenario: "trouble"}, "", looks[:2]},
	{"middle", world{regions: 4, each: 8, scenario: "trouble"}, "", looks},
	{"long", world{regions: 3, each: 4, scenario: "held", long: true}, "", looks},
	{"long-middle", world{regions: 4, each: 8, scenario: "held", long: true}, "", looks},
	{"long-large", world{regions: 8, each: 25, scenario: "held", long: true}, `const f = document.querySelector('#filter'); f.value = 'nrt'; f.dispatchEvent(new Event('input'))`, looks},
	{"silent", world{regions: 3, each: 4, scenario: "silent", role: "view"}, "", looks},
	{"empty", world{scenario: "calm"}, "", looks[:1]},
}

// TestReadmePictures_update_areTaken makes the pictures that the documents show. They are not
// compared: fonts differ.
func TestReadmePictures_update_areTaken(t *testing.T) {
	if !*update {
		t.Skip("only with -update")
	}
	url := serve(t, world{regions: 3, each: 4, scenario: "held"})
	for name, l := range map[string]browser.Look{
		"page-light": {Width: 1280, Height: 880, Scheme: "light"}, "page-dark": {Width: 1280, Height: 880, Scheme: "dark"},
	} {
		tab := chromium.Tab(t)
		l.Emulate(tab)
		tab.Do(chromedp.Navigate(url))
		tab.Until(browser.Lively)
		ticks(tab, 2) // dots are on their way
		write(t, repository.Path("docs/pictures/"+name+".png"), browser.Get(tab, chromedp.CaptureScreenshot()))
	}
}

// TestPictures_directoryGiven_areTaken shows the page for people to look at: PAGE_PICTURES is a directory
// for all of them.
func TestPictures_directoryGiven_areTaken(t *testing.T) {
	dir := os.Getenv("PAGE_PICTURES")
	if dir == "" {
		t.Skip("PAGE_PICTURES names no directory")
	}
	for _, shot := range shots {
		url := serve(t, shot.world)
		for _, l := range shot.looks {
			t.Run(shot.name+"-"+l.Name, func(t *testing.T) {
				tab := chromium.Tab(t)
				l.Emulate(tab)
				tab.Do(chromedp.Navigate(url))
				tab.Until(browser.Lively)
				if shot.world.each > 0 && shot.world.scenario != "silent" {
					ticks(tab, 1) // dots are on their way
				}
				if shot.script != "" {
					tab.Run(shot.script)
				}
				path := filepath.Join(dir, shot.name+"-"+l.Name+".png")
				if l.Mobile {
					write(t, path, browser.Get(tab, chromedp.FullScreenshot(100)))
				} else {
					write(t, path, browser.Get(tab, chromedp.CaptureScreenshot()))
				}
			})
		}
	}
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil { //nolint:gosec // pictures are for everybody
		t.Fatal(err)
	}
}
