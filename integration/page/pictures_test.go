package page_test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
)

var update = flag.Bool("update", false, "make the pictures in docs/pictures anew")

// shots are pictures of the page, each in some looks.
var shots = []struct {
	name   string
	world  world
	script string
	looks  []look
}{
	{"flow", world{regions: 3, each: 4, scenario: "held"}, "", looks},
	{"server", world{regions: 3, each: 4, scenario: "trouble"}, `document.querySelector('#servers [data-name="iad-2"] button').click()`, looks},
	{"drain", world{regions: 3, each: 4, scenario: "trouble"}, `document.querySelector('#servers [data-name="iad-1"] button').click(); document.querySelector('.acts button').click()`, looks[:1]},
	{"matrix", world{regions: 3, each: 4, scenario: "trouble"}, `document.querySelector('[value=matrix]').click()`, looks[:1]},
	{"large", world{regions: 8, each: 25, scenario: "trouble"}, "", looks[:2]},
	{"middle", world{regions: 4, each: 8, scenario: "trouble"}, "", looks[:1]},
	{"silent", world{regions: 3, each: 4, scenario: "silent", role: "view"}, "", looks},
	{"empty", world{scenario: "calm"}, "", looks[:1]},
}

// TestReadmePictures makes the pictures that the documents show. They are not
// compared: fonts differ.
func TestReadmePictures(t *testing.T) {
	if !*update {
		t.Skip("only with -update")
	}
	url := serve(t, world{regions: 3, each: 4, scenario: "held"})
	for name, l := range map[string]look{
		"page-light": {width: 1280, height: 880, scheme: "light"}, "page-dark": {width: 1280, height: 880, scheme: "dark"},
	} {
		tab := newTab(t)
		l.emulate(tab)
		tab.do(chromedp.Navigate(url))
		tab.until(lively)
		ticks(tab, 2) // dots are on their way
		write(t, filepath.Join(root(), "docs", "pictures", name+".png"), get(tab, chromedp.CaptureScreenshot()))
	}
}

// TestPictures shows the page for people to look at: PAGE_PICTURES is a directory
// for all of them.
func TestPictures(t *testing.T) {
	dir := os.Getenv("PAGE_PICTURES")
	if dir == "" {
		t.Skip("PAGE_PICTURES names no directory")
	}
	for _, shot := range shots {
		url := serve(t, shot.world)
		for _, l := range shot.looks {
			t.Run(shot.name+"-"+l.name, func(t *testing.T) {
				tab := newTab(t)
				l.emulate(tab)
				tab.do(chromedp.Navigate(url))
				tab.until(lively)
				if shot.world.each > 0 && shot.world.scenario != "silent" {
					ticks(tab, 1) // dots are on their way
				}
				if shot.script != "" {
					tab.run(shot.script)
				}
				path := filepath.Join(dir, shot.name+"-"+l.name+".png")
				if l.mobile {
					write(t, path, get(tab, chromedp.FullScreenshot(100)))
				} else {
					write(t, path, get(tab, chromedp.CaptureScreenshot()))
				}
			})
		}
	}
}
