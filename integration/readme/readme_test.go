package readme_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/tailxds/tailxds/integration/readme"
	"github.com/tailxds/tailxds/integration/shares"
)

const page = "# Try it\n" +
	"```sh\nrm -rf /  # not marked, not run\n```\n" +
	"<!-- test: run -->\n```sh\nmake lab\ncd lab\n```\n" +
	"<!-- test: run -->\n```sh\ndocker compose run --rm client http://west-1:10000/ 1000\n```\n" +
	"It prints something like\n" +
	"<!-- test: shares west-1=1 west-2=1 -->\n```text\n" +
	"Hello from west-1! in west: 50.0% (500)\nHello from west-2! in west: 50.0% (500)\nFailed: 0\n```\n"

func TestParse(t *testing.T) {
	blocks, err := readme.Parse(page)
	if err != nil {
		t.Fatal(err)
	}
	if len(blocks) != 2 {
		t.Fatalf("got %d blocks: %+v", len(blocks), blocks)
	}
	if blocks[0].Script != "make lab\ncd lab\n" || blocks[0].Line != 7 {
		t.Errorf("the first block is %+v", blocks[0])
	}
	if want := (shares.Shares{"west-1": 1, "west-2": 1}); !maps.Equal(blocks[1].Shares, want) {
		t.Errorf("the second block has the shares %v, want %v", blocks[1].Shares, want)
	}
}

func TestParse_malformed_isError(t *testing.T) {
	for name, test := range map[string]struct{ page, says string }{
		"a mark without a block":    {"<!-- test: run -->\n\ntext", "not followed by"},
		"a mark at the end":         {"<!-- test: run -->", "not followed by"},
		"an unknown mark":           {"<!-- test: walk -->\n```sh\n```\n", "unknown mark"},
		"an open mark":              {"<!-- test: run\n", "does not end"},
		"an open block":             {"<!-- test: run -->\n```sh\nls\n", "does not end"},
		"output of nothing":         {"<!-- test: output -->\n```text\n```\n", "before any block"},
		"shares that name nobody":   {"<!-- test: run -->\n```sh\n```\n<!-- test: shares -->\n```text\n```\n", "names no shares"},
		"shares that are no number": {"<!-- test: run -->\n```sh\n```\n<!-- test: shares a=x -->\n```text\n```\n", "not HOST=SHARE"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readme.Parse(test.page)
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want an error that says %q", err, test.says)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	const even = "Hello from a! in x: 50.0% (500)\nHello from b! in x: 50.0% (500)\nFailed: 0\n"
	const drifted = "Hello from a! in x: 75.0% (750)\nHello from b! in x: 25.0% (250)\nFailed: 0\n"
	balanced := shares.Shares{"a": 1, "b": 1}
	for name, test := range map[string]struct {
		block  readme.Block
		output string
		fits   bool
	}{
		"nothing is said":             {readme.Block{}, "anything", true},
		"the same letters":            {readme.Block{Output: "ok\n"}, "ok", true},
		"other letters":               {readme.Block{Output: "ok\n"}, "no", false},
		"the shares fit":              {readme.Block{Output: even, Shares: balanced}, even, true},
		"the last report counts":      {readme.Block{Output: even, Shares: balanced}, "Started\n" + drifted + "done\n" + even + "\n", true},
		"latencies are passed by":     {readme.Block{Output: even, Shares: balanced}, "Started\n" + even + "Latency: p50 0.9 ms\n", true},
		"an earlier report does not":  {readme.Block{Output: even, Shares: balanced}, even + drifted, false},
		"the client's shares are off": {readme.Block{Output: even, Shares: balanced}, drifted, false},
		"the page's shares are off":   {readme.Block{Output: drifted, Shares: balanced}, even, false},
	} {
		t.Run(name, func(t *testing.T) {
			if err := test.block.Check(test.output); (err == nil) != test.fits {
				t.Errorf("got %v", err)
			}
		})
	}
}
