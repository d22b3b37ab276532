package browser

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// Lively is whether the live page shows figures.
const Lively = `document.body.dataset.live === 'live' && document.querySelector('#k-cross-sub').textContent !== ''`

// Row is a server's in the live page's traffic.
func Row(name string) string {
	return fmt.Sprintf(`document.querySelector('#servers [data-name=%q]')`, name)
}

// Number is a figure of the live page, without what follows it.
func Number(selector string) string {
	return fmt.Sprintf(`parseFloat(document.querySelector('%s').textContent.replace(/[,%%]/g, ''))`, selector)
}

// ShareOf is a server's share on the live page, in percent.
func ShareOf(name string) string { return Number(fmt.Sprintf(`#servers [data-name=%q] .share`, name)) }

// Past is what a live page is told of the last minutes.
type Past struct {
	Start, Step int64 // in Unix milliseconds, and milliseconds
	Rate        []float64
	Shares      [][]int // in thousandths, in the order of Regions
	Regions     []string
}

// ReadPast asks for a live page's stream as a page does, and returns its first history.
func ReadPast(ctx context.Context, url string) (Past, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"live", nil)
	if err != nil {
		return Past{}, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return Past{}, fmt.Errorf("asking for the page's stream: %w", err)
	}
	defer func() { _ = answer.Body.Close() }()
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if lines.Text() != "event: history" {
			continue
		}
		lines.Scan()
		var past Past
		if err := json.Unmarshal([]byte(strings.TrimPrefix(lines.Text(), "data: ")), &past); err != nil {
			return Past{}, fmt.Errorf("reading the page's history: %w", err)
		}
		return past, nil
	}
	return Past{}, errors.Join(fmt.Errorf("%s has no history: %s", request.URL, answer.Status), lines.Err())
}

// Requests are those of the steps that began at a time or later, in Unix
// milliseconds: all of them, and by region. Rates are told to a tenth and shares to
// a thousandth.
func (p Past) Requests(since int64) (all float64, byRegion map[string]float64) {
	byRegion = make(map[string]float64)
	for i, rate := range p.Rate {
		if p.Start+int64(i)*p.Step < since {
			continue
		}
		requests := rate * float64(p.Step) / 1000
		all += requests
		for r, thousandths := range p.Shares[i] {
			byRegion[p.Regions[r]] += requests * float64(thousandths) / 1000
		}
	}
	return all, byRegion
}
