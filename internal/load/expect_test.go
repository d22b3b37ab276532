package load

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseExpectation_texts_areReadOrRefused(t *testing.T) {
	for text, want := range map[string]Expectation{
		"west=33±5":        {"west", 33, 5},
		"west-1=16.7+-0.5": {"west-1", 16.7, 0.5},
		"eu_2=0±0":         {"eu_2", 0, 0},
		"x=100±100":        {"x", 100, 100},
	} {
		if got, err := ParseExpectation(text); err != nil || got != want {
			t.Errorf("%q is read as %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "west", "west=33", "=33±5", "west=±5", "west=33±", "west=-1±5", "west=101±5", "west=33±-5", "west=NaN±5", "west=33±101", "two words=33±5", "west!=33±5"} {
		if got, err := ParseExpectation(text); err == nil || !strings.Contains(err.Error(), "write it like west=33±5") {
			t.Errorf("%q is read as %+v, %v; want an error that says how to write it", text, got, err)
		}
	}
}

func FuzzParseExpectation(f *testing.F) {
	f.Add("west=33±5")
	f.Add("west-1=16.7+-0.5")
	f.Fuzz(func(t *testing.T, text string) {
		e, err := ParseExpectation(text)
		if err != nil {
			return
		}
		if !(e.Share >= 0 && e.Share <= 100 && e.Within >= 0 && e.Within <= 100) || e.Word == "" {
			t.Errorf("%q is read as %+v", text, e)
		}
		r := Result{Answers: map[string]int{"Hello from " + e.Word + "!": 1}}
		if m := r.Check([]Expectation{{e.Word, 100, 0}}); !m[0].OK {
			t.Errorf("%q is not found in an answer that has it", e.Word)
		}
	})
}

func TestCheck_answers_countsWholeWords(t *testing.T) {
	r := Result{
		Answers:  map[string]int{"Hello from west-1! in west": 30, "Hello from west-2! in west": 10, "Hello from east-1! in east": 60},
		Failures: map[string]int{"timed out": 100},
	}
	got := r.Check([]Expectation{{"west", 45, 5}, {"west", 45, 4.9}, {"west-1", 30, 0}, {"east-1", 54, 5}, {"north", 0, 0}})
	want := []ShareResult{
		{"west", 45, 5, 40, true}, {"west", 45, 4.9, 40, false}, {"west-1", 30, 0, 30, true}, {"east-1", 54, 5, 60, false}, {"north", 0, 0, 0, true},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if got := (Result{}).Check([]Expectation{{"west", 0, 100}}); got[0].OK {
		t.Error("an expectation was met without a single answer")
	}
	if got := want[1].String(); got != "west has 40.0% of the answers, and 45±4.9 was expected" {
		t.Errorf("it is told as %q", got)
	}
}

func TestWriteJSON_result_isComplete(t *testing.T) {
	r := newResult(Options{Rate: 50})
	for _, o := range []outcome{{answer: "a<b", took: 2 * time.Millisecond}, {answer: "a<b", took: 4 * time.Millisecond}, {answer: "c", took: 100 * time.Hour}, {reason: "503", took: -time.Second}} {
		r.count(o)
	}
	r.Elapsed = 1500 * time.Millisecond
	var b strings.Builder
	if err := r.WriteJSON(&b, r.Check([]Expectation{{"c", 33, 1}})); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), `"a<b"`) {
		t.Errorf("text is escaped that needs not be: %s", b.String())
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(b.String()), &got); err != nil {
		t.Fatal(err)
	}
	latency := got["latency_ms"].(map[string]any)
	delete(got, "latency_ms")
	want := map[string]any{
		"requests": 4., "answered": 3., "failed": 1., "seconds": 1.5, "rate": 50.,
		"answers":  []any{map[string]any{"text": "a<b", "count": 2., "share": 200. / 3}, map[string]any{"text": "c", "count": 1., "share": 100. / 3}},
		"failures": []any{map[string]any{"text": "503", "count": 1.}},
		"expected": []any{map[string]any{"word": "c", "want": 33., "within": 1., "share": 100. / 3, "ok": true}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	// A time beyond the range counts as its end, and none is lost.
	for name, want := range map[string]float64{"p50": 2, "p90": 3.6e6, "p99": 3.6e6, "p99.9": 3.6e6, "max": 3.6e6, "mean": 900_001.5} {
		if got, ok := latency[name].(float64); !ok || got < want*0.999 || got > want*1.001 {
			t.Errorf("%s is %v, want %v", name, latency[name], want)
		}
	}
	if r.WriteJSON(failingWriter{}, nil) == nil {
		t.Error("a failing writer went unnoticed")
	}
}

func TestLatency_String_isReadable(t *testing.T) {
	r := newResult(Options{Rate: 1})
	for i := range 1000 {
		r.count(outcome{answer: "a", took: time.Duration(i+1) * time.Millisecond})
	}
	var b strings.Builder
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	if want := "a: 100.0% (1000)\nFailed: 0\nLatency: p50 500.2 ms, p90 900.1 ms, p99 990.2 ms, p99.9 999.4 ms, max 1000.4 ms\n"; b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}
