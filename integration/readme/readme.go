// Package readme finds the shell blocks of a Markdown page that a test should
// run, and what the page says they print.
//
// The page marks them by HTML comments, which readers do not see:
//
//	<!-- test: run -->            the next ```sh block is run
//	<!-- test: shares a=1 b=2 --> the next ```text block is what the client printed
//	                              by the last run block: both the page's text and
//	                              the real output must fit these shares
//	<!-- test: output -->         the next ```text block is what the last run block
//	                              prints, letter by letter
package readme

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/tailxds/tailxds/integration/shares"
)

// Block is a shell block and what the page says about its output.
type Block struct {
	Line   int // of the page, where the script begins
	Script string
	Output string        // what the page shows, if it shows anything to check
	Shares shares.Shares // set if the output is the client's
}

// Parse returns the marked blocks of a page in their order. A mark without its
// block is an error, so that none goes untested by a slip.
func Parse(page string) ([]Block, error) {
	var blocks []Block
	p := parser{lines: strings.Split(page, "\n")}
	for p.next() {
		mark, marked := strings.CutPrefix(p.line(), "<!-- test: ")
		if !marked {
			continue
		}
		mark, closed := strings.CutSuffix(mark, " -->")
		if !closed {
			return nil, fmt.Errorf("line %d: the mark does not end with -->", p.at)
		}
		var err error
		if blocks, err = p.take(blocks, mark); err != nil {
			return nil, fmt.Errorf("line %d: %w", p.at, err)
		}
	}
	return blocks, nil
}

// parser walks over the page's lines; at is the current one, counted from 1.
type parser struct {
	lines []string
	at    int
}

func (p *parser) next() bool   { p.at++; return p.at <= len(p.lines) }
func (p *parser) line() string { return strings.TrimSpace(p.lines[p.at-1]) }

// take reads the fenced block after a mark and adds it to the blocks.
func (p *parser) take(blocks []Block, mark string) ([]Block, error) {
	kind, rest, _ := strings.Cut(mark, " ")
	if kind == "run" {
		start := p.at + 2
		script, err := p.fenced("sh")
		return append(blocks, Block{Line: start, Script: script}), err
	}
	if kind != "shares" && kind != "output" {
		return nil, fmt.Errorf("unknown mark %q: it is run, output or shares", kind)
	}
	if len(blocks) == 0 {
		return nil, fmt.Errorf("%s comes before any block that is run", kind)
	}
	last := &blocks[len(blocks)-1]
	text, err := p.fenced("text")
	if err != nil {
		return nil, err
	}
	last.Output = text
	if kind == "shares" {
		last.Shares, err = parseShares(rest)
	}
	return blocks, err
}

// fenced reads the block that must begin on the next line.
func (p *parser) fenced(language string) (string, error) {
	if fence := "```" + language; !p.next() || p.line() != fence {
		return "", fmt.Errorf("the mark is not followed by a %s block", fence)
	}
	var body strings.Builder
	for p.next() {
		if p.line() == "```" {
			return body.String(), nil
		}
		body.WriteString(p.lines[p.at-1] + "\n")
	}
	return "", fmt.Errorf("the %s block does not end", language)
}

// parseShares reads "west-1=1 west-2=1.4".
func parseShares(text string) (shares.Shares, error) {
	found := shares.Shares{}
	for _, field := range strings.Fields(text) {
		host, value, _ := strings.Cut(field, "=")
		share, err := strconv.ParseFloat(value, 64)
		if err != nil || share <= 0 {
			return nil, fmt.Errorf("%q is not HOST=SHARE", field)
		}
		found[host] = share
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("the mark names no shares: write shares west-1=1 west-2=1")
	}
	return found, nil
}

// Check holds what a block printed against what the page says it prints.
func (b Block) Check(output string) error {
	if b.Shares == nil {
		if b.Output != "" && strings.TrimSpace(output) != strings.TrimSpace(b.Output) {
			return fmt.Errorf("the block at line %d prints\n%s\nand the page shows\n%s", b.Line, output, b.Output)
		}
		return nil
	}
	for who, text := range map[string]string{"the page": b.Output, "the client": lastReport(output)} {
		tally, err := shares.Parse(text)
		if err != nil {
			return fmt.Errorf("what %s says after line %d: %w", who, b.Line, err)
		}
		if err := shares.Check(tally.By(shares.Host), b.Shares); err != nil {
			return fmt.Errorf("what %s says after line %d: %w", who, b.Line, err)
		}
	}
	return nil
}

// lastReport is what the client printed last: a block may call it more than
// once, and other commands before it.
func lastReport(output string) string {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	first := len(lines) - 1
	if first > 0 && strings.HasPrefix(lines[first], "Latency: ") {
		first--
	}
	for first > 0 && strings.HasSuffix(lines[first-1], ")") && strings.Contains(lines[first-1], "% (") {
		first--
	}
	return strings.Join(lines[first:], "\n") + "\n"
}
