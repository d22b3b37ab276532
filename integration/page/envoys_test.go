package page_test

import (
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/tailxds/tailxds/integration/browser"
	"github.com/tailxds/tailxds/integration/harness"
	"github.com/tailxds/tailxds/integration/shares"
)

// pool is real Envoys and servers beside the real control plane, and a way for
// the browser to its page.
type pool struct {
	*harness.Rig
	control *harness.ControlPlane
	servers map[string]*harness.Server
	entries map[string]*harness.Envoy // by region
	url     string                    // of the page, by loopback
}

// newPool is servers in two regions, with weights: a 1 and b 3 in west, c and d
// with 2 each in east; and an entry in each region.
func newPool(t *testing.T, policy string) *pool {
	t.Helper()
	if why := harness.UnavailableReason(); why != "" {
		t.Skip(why)
	}
	programs, err := harness.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p := &pool{Rig: harness.New(t, programs), servers: map[string]*harness.Server{}, entries: map[string]*harness.Envoy{}}
	p.control = p.ControlPlane(policy, p.devices("a", "b", "c", "d")...)
	for _, region := range []string{"west", "east"} {
		p.entries[region] = p.control.EnvoyIn(region, region+"-entry")
	}
	for _, entry := range p.entries {
		entry.AwaitHealthy("server", 4)
	}
	p.url = forward(t, p.control.Host, "127.0.0.1:9090")
	return p
}

// devices is a list of some of the servers.
func (p *pool) devices(names ...string) []harness.Device {
	tags := map[string]string{"a": "weight-1 region-west", "b": "weight-3 region-west", "c": "weight-2 region-east", "d": "weight-2 region-east"}
	var list []harness.Device
	for _, name := range names {
		if p.servers[name] == nil {
			p.servers[name] = p.Server(name)
		}
		list = append(list, p.servers[name].Device(strings.Fields("tag:"+strings.ReplaceAll(tags[name], " ", " tag:"))...))
	}
	return list
}

// forward makes a port of this machine's loopback out of one on a host of the
// rig, where connections come by loopback, too.
func forward(t *testing.T, h *harness.Host, to string) (url string) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return // it is closed
			}
			go func() {
				defer func() { _ = from.Close() }()
				c, err := h.Dial(context.Background(), "tcp", to)
				if err != nil {
					return // the browser is told by the end of its connection
				}
				go func() { _, _ = io.Copy(c, from); _ = c.Close() }()
				_, _ = io.Copy(from, c)
			}()
		}
	}()
	return "http://" + l.Addr().String() + "/"
}

// steady sends a fixed number of requests a second, half into each region, until
// it is stopped.
func (p *pool) steady(t *testing.T, rate int) (stop func() shares.Tally) {
	t.Helper()
	var loads []*harness.Load
	for _, entry := range p.entries {
		every := time.NewTicker(2 * time.Second / time.Duration(rate))
		t.Cleanup(every.Stop)
		get := harness.Get(entry.URL(10000), "")
		loads = append(loads, entry.Flow(4, func(ctx context.Context) (*http.Request, error) {
			<-every.C
			return get(ctx)
		}))
	}
	return func() shares.Tally {
		sum := shares.Tally{Counts: map[string]int{}}
		for _, load := range loads {
			sum.Add(load.Stop().By(shares.Host))
		}
		return sum
	}
}

// open opens a page and waits for its first figures.
func (p *pool) open(t *testing.T) browser.Tab {
	t.Helper()
	tab := chromium.Tab(t)
	tab.Open(p.url, browser.Wide())
	return tab
}

// The figures on the page are what the client counted, of shares and of requests;
// a drained server's share goes to 0 there, and its change is marked at once.
func TestPage_realTraffic_showsWhatClientsCount(t *testing.T) {
	p := newPool(t, "defaults: {locality: exact}")
	tab := p.open(t)
	const rate = 160
	stop := p.steady(t, rate)
	// Envoys report each five seconds, and figures are of some ten.
	tab.Until(fmt.Sprintf(`Math.abs(%s - %d) < %d`, browser.Number("#k-rate"), rate, rate/10))
	for name, percent := range map[string]float64{"a": 12.5, "b": 37.5, "c": 25, "d": 25} {
		tab.Until(fmt.Sprintf(`Math.abs(%s - %v) < 1.5`, browser.ShareOf(name), percent))
		browser.Want(tab, fmt.Sprintf(`Math.abs(parseFloat(%s.querySelector('[data-f=expected]').textContent) - %v) < 0.06`, browser.Row(name), percent), true)
	}
	tab.Until(`document.querySelector('#k-ok').textContent === '100.00'`)
	tab.Until(fmt.Sprintf(`Math.abs(%s - 50) < 3`, browser.Number("#k-cross"))) // by the weights, half of each region's requests
	tab.Until(`document.querySelectorAll('#callers tbody tr').length === 2 && document.querySelector('#k-p99').textContent !== '–'`)

	screenshot(tab, "real")
	p.wellCounted(t, stop())

	// An operator drains b: that is marked at once, and its share goes.
	stop = p.steady(t, rate)
	tab.Run(browser.Row("b") + `.querySelector('button').click()`)
	tab.Run(`document.querySelector('.acts button').click()`)
	tab.Until(`[...document.querySelectorAll('#ask .preview tr')].map(r => r.textContent).join() === 'east50.0 %→80.0 %,west50.0 %→20.0 %'`)
	tab.Run(`document.querySelector('#ask-do').click()`)
	tab.Until(browser.Row("b") + `.dataset.state === 'drained'`)
	tab.Until(`document.querySelector('#changes').textContent.includes('b') && document.querySelectorAll('.marker[data-kind=drained]').length > 0`)
	tab.Until(fmt.Sprintf(`%s.querySelector('.rate').textContent === '' && Math.abs(%s - 20) < 2`, browser.Row("b"), browser.ShareOf("a")))

	tab.Run(`document.querySelector('.acts button').click(); document.querySelector('#ask-do').click()`)
	tab.Until(browser.Row("b") + `.dataset.state === 'serving'`)
	tab.Until(fmt.Sprintf(`Math.abs(%s - 37.5) < 2`, browser.ShareOf("b")))
	if tally := stop(); tally.Failed > 0 {
		t.Errorf("%d requests failed: %s", tally.Failed, tally.Reasons)
	}
}

// wellCounted waits until the page's history has just the requests that the
// client counted. (What an Envoy sent to a server after its last report, it does
// not tell once that server is drained.)
func (p *pool) wellCounted(t *testing.T, tally shares.Tally) {
	t.Helper()
	if tally.Failed > 0 {
		t.Errorf("%d requests failed: %s", tally.Failed, tally.Reasons)
	}
	deadline := time.Now().Add(browser.Patience)
	for {
		past, err := browser.ReadPast(t.Context(), p.url)
		if err != nil {
			t.Fatal(err)
		}
		sum, _ := past.Requests(0)
		if math.Abs(sum-float64(tally.Answered())) < 5 { // rates are rounded
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the page's history has %.0f requests, the client counted %d", sum, tally.Answered())
		}
	}
}

// What Envoys find unhealthy is said as they see it, with what to do.
func TestPage_unhealthyServer_saysWhoReportsIt(t *testing.T) {
	p := newPool(t, "")
	tab := p.open(t)
	p.servers["b"].SetUnhealthy(true)
	tab.Until(browser.Row("b") + `.querySelector('.why').textContent === '2 of 2 say unhealthy'`)
	tab.Until(`document.querySelector('#problems').textContent.includes('bis unhealthy') || document.querySelector('#problems').textContent.includes('b is unhealthy')`)
	p.servers["b"].SetUnhealthy(false)
	tab.Until(browser.Row("b") + `.dataset.health === undefined`)
}

// A loss that is held is shown as held, and goes once an operator accepts it.
func TestPage_removalHeldBack_isAccepted(t *testing.T) {
	p := newPool(t, "")
	tab := p.open(t)
	p.control.SetDevices(p.devices("a")...)
	tab.Until(`document.querySelector('#held').textContent.includes('3 of 4 serving devices are missing')`)
	browser.Want(tab, browser.Row("c")+`.dataset.state`, "serving")
	tab.Run(`document.querySelector('#held button').click()`)
	tab.Until(`document.querySelector('#ask .names').textContent === 'b  c  d' && document.querySelector('#ask .preview').textContent.includes('100.0 %')`)
	tab.Run(`document.querySelector('#ask-do').click()`)
	tab.Until(`document.querySelectorAll('#held li').length === 0 && document.querySelectorAll('#servers tbody tr').length === 1`)
}

// Who comes from elsewhere than loopback may look, and nothing else.
func TestPage_fromElsewhere_readOnly(t *testing.T) {
	p := newPool(t, "")
	p.control.Stop()
	p.control.Start("--admin", "0.0.0.0:9090")
	laptop := p.Host("laptop")
	url := p.control.URL(9090)
	if status, body, err := laptop.Once(harness.Get(url, "")); err != nil || status != 200 || !strings.Contains(body, "<title>tailxds</title>") {
		t.Errorf("looking: %d %v %.80s", status, err, body)
	}
	status, body, err := laptop.Once(func(ctx context.Context) (*http.Request, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"act/drain", strings.NewReader(`{"device": "a"}`))
		if err == nil {
			r.Header.Set("Content-Type", "application/json")
		}
		return r, err
	})
	if err != nil || status != 403 {
		t.Errorf("draining: %d %v %s", status, err, body)
	}
	if status, body, err := laptop.Once(harness.Get(url, "evil.example")); err != nil || status != 421 {
		t.Errorf("under another name: %d %v %s", status, err, body)
	}
}

// screenshot is for whoever looks at what a test saw.
func screenshot(tab browser.Tab, name string) {
	if dir := os.Getenv("PAGE_PICTURES"); dir != "" {
		write(tab.T, filepath.Join(dir, name+".png"), browser.Get(tab, chromedp.CaptureScreenshot()))
	}
}
