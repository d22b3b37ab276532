package shares

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Tally is what a load client counted.
type Tally struct {
	Counts map[string]int // answers by what they said, or by host or region
	Failed int
	// Reasons is what the client said about failures, if anybody kept it. It is
	// not part of its standard output.
	Reasons string
}

// Answered is the number of requests that got an answer.
func (t Tally) Answered() int {
	n := 0
	for _, count := range t.Counts {
		n += count
	}
	return n
}

// Add adds what another client counted.
func (t *Tally) Add(other Tally) {
	t.Failed += other.Failed
	t.Reasons += other.Reasons
	for answer, n := range other.Counts {
		t.Counts[answer] += n
	}
}

// By adds up the counts whose answers have the same key: By(Host), By(Region).
func (t Tally) By(key func(answer string) string) Tally {
	grouped := Tally{Counts: map[string]int{}, Failed: t.Failed, Reasons: t.Reasons}
	for answer, count := range t.Counts {
		grouped.Counts[key(answer)] += count
	}
	return grouped
}

var greeting = regexp.MustCompile(`^Hello from (.+)! in (.*)$`)

// Host is the host that a server's answer names, or the whole answer if it
// names none, which no expectation will then match.
func Host(answer string) string {
	if m := greeting.FindStringSubmatch(answer); m != nil {
		return m[1]
	}
	return answer
}

// Region is the region that a server's answer names, or the whole answer.
func Region(answer string) string {
	if m := greeting.FindStringSubmatch(answer); m != nil {
		return m[2]
	}
	return answer
}

var (
	shareLine  = regexp.MustCompile(`^(.+): (\d+\.\d)% \((\d+)\)$`)
	failedLine = regexp.MustCompile(`^Failed: (\d+)$`)
	// Printed where the client keeps to a rate.
	latencyLine = regexp.MustCompile(`^Latency: .+$`)
)

// Parse reads what the client prints on standard output: one line an answer,
// most frequent first, then the failures, and latencies where it kept to a rate.
// Anything else is an error, for its lines are an interface that users parse too.
func Parse(output string) (Tally, error) {
	tally := Tally{Counts: map[string]int{}}
	lines := strings.Split(strings.TrimSuffix(output, "\n"), "\n")
	last := len(lines) - 1
	if last > 0 && latencyLine.MatchString(lines[last]) {
		last--
	}
	m := failedLine.FindStringSubmatch(lines[last])
	if m == nil {
		return Tally{}, fmt.Errorf("the client's last line is %q, not \"Failed: N\"", lines[last])
	}
	failed, err := strconv.Atoi(m[1])
	if err != nil {
		return Tally{}, fmt.Errorf("reading the failures: %w", err)
	}
	tally.Failed = failed
	previous := -1
	for _, line := range lines[:last] {
		m := shareLine.FindStringSubmatch(line)
		if m == nil {
			return Tally{}, fmt.Errorf("the client's line %q is not \"ANSWER: P%% (N)\"", line)
		}
		count, err := strconv.Atoi(m[3])
		if err != nil {
			return Tally{}, fmt.Errorf("reading a count: %w", err)
		}
		if previous >= 0 && count > previous {
			return Tally{}, fmt.Errorf("the client's line %q comes after a rarer answer", line)
		}
		if _, twice := tally.Counts[m[1]]; twice {
			return Tally{}, fmt.Errorf("the client lists %q twice", m[1])
		}
		previous, tally.Counts[m[1]] = count, count
	}
	return tally, checkPercentages(lines[:last], tally)
}

// checkPercentages holds each printed percentage against its count: they are
// parts of all answers.
func checkPercentages(lines []string, tally Tally) error {
	total := float64(tally.Answered())
	for _, line := range lines {
		m := shareLine.FindStringSubmatch(line)
		if want := fmt.Sprintf("%.1f", 100*float64(tally.Counts[m[1]])/total); m[2] != want {
			return fmt.Errorf("the client's line %q should say %s%%", line, want)
		}
	}
	return nil
}
