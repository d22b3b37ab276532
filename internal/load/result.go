package load

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// Result is what came back.
type Result struct {
	// Answers counts each distinct text of a 2xx answer.
	Answers map[string]int
	// Failures counts each reason for which a request got no 2xx answer.
	Failures map[string]int
	// Rate is that of [Options]; 0 in a closed loop.
	Rate float64
	// Elapsed is from the start to the last answer.
	Elapsed time.Duration
	// Latency is how long requests took, failed ones included.
	Latency Latency
}

func newResult(opts Options) Result {
	return Result{Answers: map[string]int{}, Failures: map[string]int{}, Rate: opts.Rate, Latency: newLatency()}
}

func (r Result) count(o outcome) {
	r.Latency.record(o.took)
	if o.reason != "" {
		r.Failures[o.reason]++
		return
	}
	r.Answers[o.answer]++
}

// Requests is the number of those that were answered or failed.
func (r Result) Requests() int { return r.Answered() + r.Failed() }

// Answered is the number of requests that got a 2xx answer.
func (r Result) Answered() int { return sum(r.Answers) }

// Failed is the number of requests that got none.
func (r Result) Failed() int { return sum(r.Failures) }

// Write prints each answer with its share of all answers, the most frequent
// first and equally frequent ones by their text, and the failures. Where there
// was a rate it prints how long requests took; a closed loop can't tell.
func (r Result) Write(w io.Writer) error {
	var b strings.Builder
	answered := r.Answered()
	for _, text := range byCount(r.Answers) {
		n := r.Answers[text]
		fmt.Fprintf(&b, "%s: %.1f%% (%d)\n", text, 100*float64(n)/float64(answered), n)
	}
	fmt.Fprintf(&b, "Failed: %d\n", r.Failed())
	if r.Rate > 0 {
		fmt.Fprintf(&b, "Latency: %s\n", r.Latency)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("printing the result: %w", err)
	}
	return nil
}

// WriteReasons prints why requests failed, the most frequent reason first.
func (r Result) WriteReasons(w io.Writer) error {
	for _, text := range byCount(r.Failures) {
		if _, err := fmt.Fprintf(w, "%d × %s\n", r.Failures[text], text); err != nil {
			return fmt.Errorf("printing why requests failed: %w", err)
		}
	}
	return nil
}

// resultJSON is a [Result] for machines. Shares are in percent of all answers.
type resultJSON struct {
	Requests int            `json:"requests"`
	Answered int            `json:"answered"`
	Failed   int            `json:"failed"`
	Seconds  float64        `json:"seconds"`
	Rate     float64        `json:"rate,omitempty"`
	Answers  []countJSON    `json:"answers"`
	Failures []countJSON    `json:"failures"`
	Latency  map[string]any `json:"latency_ms"`
	Expected []ShareResult  `json:"expected,omitempty"`
}

type countJSON struct {
	Text  string  `json:"text"`
	Count int     `json:"count"`
	Share float64 `json:"share,omitempty"`
}

// WriteJSON prints the result, and how the expectations were met, as one JSON
// document.
func (r Result) WriteJSON(w io.Writer, met []ShareResult) error {
	doc := resultJSON{
		Requests: r.Requests(), Answered: r.Answered(), Failed: r.Failed(),
		Seconds: r.Elapsed.Seconds(), Rate: r.Rate,
		Answers: []countJSON{}, Failures: []countJSON{}, Latency: r.Latency.milliseconds(), Expected: met,
	}
	for _, text := range byCount(r.Answers) {
		doc.Answers = append(doc.Answers, countJSON{text, r.Answers[text], 100 * float64(r.Answers[text]) / float64(doc.Answered)})
	}
	for _, text := range byCount(r.Failures) {
		doc.Failures = append(doc.Failures, countJSON{Text: text, Count: r.Failures[text]})
	}
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	out.SetEscapeHTML(false)
	if err := out.Encode(doc); err != nil {
		return fmt.Errorf("printing the result: %w", err)
	}
	return nil
}

func byCount(counts map[string]int) []string {
	return slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
}

func sum(counts map[string]int) int {
	total := 0
	for _, n := range counts {
		total += n
	}
	return total
}
