package yamldoc

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"
)

// sample has a field of each kind that is read.
type sample struct {
	Name    string            `yaml:"name"`
	On      bool              `yaml:"on"`
	Port    uint16            `yaml:"port"`
	Many    uint32            `yaml:"many"`
	Words   []string          `yaml:"words"`
	Headers map[string]string `yaml:"headers"`
	Maybe   *bool             `yaml:"maybe"`
	Any     []any             `yaml:"any"`
	Below   struct {
		Size shirt `yaml:"size"`
		Odd  odd   `yaml:"odd"`
	} `yaml:"below"`
}

type shirt int

func (s *shirt) UnmarshalText(text []byte) error {
	*s = shirt(strings.Index("sml", string(text)))
	if *s < 0 {
		return errors.New("must be s, m or l")
	}
	return nil
}

// odd reads itself: word, or {of: word}.
type odd string

func (o *odd) ReadSection(from Section) {
	of := struct {
		Of string `yaml:"of"`
	}{from.Scalar()}
	if of.Of == "" && !from.Fits(&of) {
		from.AddError("must be a word, or {of: word}")
	}
	*o = odd(of.Of)
}

func read(text string) (sample, error) {
	s := sample{Name: "was", Port: 1, Words: []string{"was"}, Headers: map[string]string{"was": "x"}}
	document, err := Parse([]byte(text))
	if err == nil && !document.Null() {
		document.Read(&s)
		err = document.Err()
	}
	return s, err
}

func TestRead_document_fillsTheValue(t *testing.T) {
	got, err := read(`
name: 5
on: true
many: 4_294_967_295
words: [a, "b c"]
headers: {x: yes, y: 1}
maybe: false
any: [1, {a: b}]
below: {size: l, odd: {of: x}}
`)
	if err != nil {
		t.Fatal(err)
	}
	no := false
	want := sample{
		Name: "5", On: true, Port: 1, Many: 4294967295, Words: []string{"a", "b c"}, Headers: map[string]string{"x": "yes", "y": "1"}, Maybe: &no,
		Any: []any{1, map[string]any{"a": "b"}},
	}
	want.Below.Size, want.Below.Odd = 2, "x"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestRead_missingKey_keepsTheValue(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "{}", "null", "---\n", "below:\n", "below: {}\n"} {
		if got, err := read(text); err != nil || got.Name != "was" || got.Port != 1 || len(got.Words) != 1 || len(got.Headers) != 1 {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	got, err := read("words:\nheaders:\nmaybe:\nany:\n")
	if err != nil || got.Words != nil || got.Headers != nil || got.Maybe != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestRead_faults_tellPlaceKeyAndRemedy(t *testing.T) {
	for text, want := range map[string]string{
		"nam: x":                                "1:1 nam: there is no such key; did you mean name?",
		"nothing: x":                            "1:1 nothing: there is no such key; there are any, below, headers, many, maybe, name, on, port, words",
		"Port2: 1":                              "1:1 Port2: there is no such key; did you mean port?",
		"name:":                                 "1:6 name: has no value: write one, or leave the key out",
		"name: [x]":                             `1:7 name: must be text, and not a list`,
		"on: 1":                                 `1:5 on: must be true or false, and not "1"`,
		"port: 65536":                           `1:7 port: must be a whole number from 0 to 65535, and not "65536"`,
		"port: 1.5":                             `1:7 port: must be a whole number from 0 to 65535, and not "1.5"`,
		"port: '1'":                             `1:7 port: must be a whole number from 0 to 65535, and not "1"`,
		"many: -1":                              `1:7 many: must be a whole number from 0 to 4294967295, and not "-1"`,
		"words: {a: b}":                         "1:8 words: must be a list, and not keys with values",
		"words: [a, [b]]":                       "1:12 words[1]: must be text, and not a list",
		"headers: x":                            `1:10 headers: must be keys and their values, and not "x"`,
		"headers:\n  a: x\n  b: {}\n  a: y\n":   "3:6 headers.b: must be text, and not keys with values\n4:3 headers.a: stands there twice, in line 2 already",
		"below: {size: xl}":                     "1:15 below.size: must be s, m or l",
		"below: {size: [s]}":                    "1:15 below.size: must be one value, and not a list",
		"below: {odd: [s]}":                     "1:14 below.odd: must be a word, or {of: word}",
		"below: {sise: s, odd: []}\nname: {}\n": "1:9 below.sise: there is no such key; did you mean size?\n1:23 below.odd: must be a word, or {of: word}\n2:7 name: must be text, and not keys with values",
		"any: [!!int x]":                        "1:1 this is no YAML that can be read: cannot construct !!str `x` as a !!int",
		"name: " + strings.Repeat("long ", 20):  "",
		"on: " + strings.Repeat("x", 60):        `1:5 on: must be true or false, and not "` + strings.Repeat("x", 60) + `"`,
		"on: " + strings.Repeat("x", 61):        `1:5 on: must be true or false, and not "` + strings.Repeat("x", 60) + `…"`,
		"- a":                                   "1:1 must be keys and their values, and not a list",
		"name: a\n---\nname: b\n":               "2:1 a second YAML document begins here; one is wanted",
		"name: 'x\n":                            "2:1 this is no YAML that can be read: found unexpected end of stream while scanning a quoted scalar that begins in line 1",
		"on: true\nname: {":                     "2:8 this is no YAML that can be read: did not find expected node content while parsing a flow node",
		"on: true\r\nname: {":                   "2:8 this is no YAML that can be read: did not find expected node content while parsing a flow node",
		"name: a: b":                            "1:8 this is no YAML that can be read: mapping values are not allowed in this context",
		"name: a\nname2: \xff":                  "2:1 this is no UTF-8 text",
		"name: \"\x7f\"":                        `1:1 the control character U+007F can't be read: write it as an escape within "…"`,
		"headers: &h {a: *h}":                   "1:17 this is no YAML that can be read: anchor 'h' value contains itself",
		"headers: &h {<<: *h}":                  "1:18 this is no YAML that can be read: merge-key: cyclic merge alias",
	} {
		_, err := read(text)
		var faults Faults
		if errors.As(err, &faults) == (want == "") {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
		var got []string
		for _, f := range faults {
			got = append(got, fmt.Sprintf("%d:%d %s", f.Line, f.Column, f.Text()))
		}
		if diff := cmp.Diff(want, strings.Join(got, "\n")); diff != "" {
			t.Errorf("%q: -want +got:\n%s", text, diff)
		}
	}
}

// Neither depth nor references make a small text a large one.
func TestParse_hostileText_isBounded(t *testing.T) {
	laughs := "a: &a [x, x, x, x, x, x, x, x, x]\n"
	for c := 'b'; c <= 'j'; c++ {
		laughs += fmt.Sprintf("%c: &%c [%s]\n", c, c, strings.TrimSuffix(strings.Repeat("*"+string(c-1)+", ", 9), ", "))
	}
	for name, text := range map[string]string{
		"lists": strings.Repeat("[", 400_000), "mappings": strings.Repeat("{a: ", 100_000), "references": laughs,
	} {
		if _, err := Parse([]byte(text)); err == nil || (!strings.Contains(err.Error(), "max depth") && !strings.Contains(err.Error(), "excessive aliasing")) {
			t.Errorf("%s: %.200v", name, err)
		}
	}
}

// Whatever shape a text has, no more values are built of it than the limits allow,
// and no more faults are told than people read.
func TestParseWithin_textBeyondLimits_isRefusedUnread(t *testing.T) {
	limits := Limits{Bytes: 10_000, Values: 1_000}
	for text, want := range map[string]string{
		strings.Repeat("x", 10_001):             "1:1 : this is larger than 10000 bytes",
		"[" + strings.Repeat("a,", 1_000) + "]": "1:1 : this holds more than 1000 values",
		strings.Repeat("k: v\n", 501):           "1:1 : this holds more than 1000 values",
		strings.Repeat("- v\n", 501):            "1:1 : this holds more than 1000 values",
		strings.Repeat("-\n", 501):              "1:1 : this holds more than 1000 values",
		strings.Repeat("? k\n", 501):            "1:1 : this holds more than 1000 values",
		"#\r[" + strings.Repeat("a,", 1_000):    "1:1 : this holds more than 1000 values",
		"#\u2028[" + strings.Repeat("a,", 1000): "1:1 : this holds more than 1000 values",
		strings.Repeat("# a: [b, c]\n", 800):    "",
		"text: " + strings.Repeat("x", 9_000):   "",
	} {
		_, err := ParseWithin([]byte(text), limits)
		var got string
		if faults := (Faults{}); errors.As(err, &faults) {
			got = fmt.Sprintf("%d:%d %s: %s", faults[0].Line, faults[0].Column, faults[0].Path, faults[0].Reason)
		}
		if got != want {
			t.Errorf("%.20q: %s, want %s", text, got, want)
		}
	}
}

func TestErr_manyFaults_firstHundredAreTold(t *testing.T) {
	_, err := read(strings.Repeat("x: 1\n", 50_000))
	var faults Faults
	if !errors.As(err, &faults) || len(faults) != maxFaults+1 || len(err.Error()) > 20_000 ||
		!strings.HasSuffix(err.Error(), "the first 100 faults are listed, and there may be more") {
		t.Errorf("%d faults: %.200v", len(faults), err)
	}
}

func TestList_hostileText_isBounded(t *testing.T) {
	for text, want := range map[string]string{
		"":           "[] <nil>",
		" null ":     "[] <nil>",
		"[]":         "[] <nil>",
		"[1,2,3]":    "[1 2 3] <nil>",
		"[1,2,3,4]":  "[] holds more than 3 entries",
		`[1,"x"]`:    "[] entry 2: json: cannot unmarshal string into Go value of type int",
		`{"a": [1]}`: `[] must be a list, and not {"a": [1]}`,
	} {
		if got, err := List[int]([]byte(text), 3); fmt.Sprint(got, err) != want {
			t.Errorf("%q: %v %v, want %s", text, got, err, want)
		}
	}
	if got, err := List[int]([]byte("[]"), 3); got == nil || err != nil {
		t.Errorf("an empty list is none: %v", err)
	}
}

func TestRead_aliasesAndMerges_areResolved(t *testing.T) {
	got, err := read("headers: &h {a: x, b: y}\nbelow: &b {size: m}\n")
	if err != nil || got.Headers["b"] != "y" || got.Below.Size != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	for text, want := range map[string]map[string]string{
		"any: [&a {a: x, b: y}]\nheaders: {<<: *a, b: z, c: w}\n":          {"a": "x", "b": "z", "c": "w"},
		"any: [&a {a: x}, &b {a: y, b: z}]\nheaders: {<<: [*a, *b]}\n":     {"a": "x", "b": "z"},
		"any: [&a {<<: {a: x, c: x}}]\nheaders: {b: y, <<: *a, c: w}\n":    {"a": "x", "b": "y", "c": "w"},
		"any: [&a x, &b [*a], &c {k: *a}]\nheaders: {*a : *a}\nname: *a\n": {"x": "x"},
	} {
		got, err := read(text)
		if diff := cmp.Diff(want, got.Headers); diff != "" || err != nil {
			t.Errorf("%q: %v, -want +got:\n%s", text, err, diff)
		}
	}
}

func TestScalar_values_onlyScalars(t *testing.T) {
	for text, want := range map[string]string{"below: {odd: s}": "s", "below: {odd: {of: x}}": "x", "below: {odd: 5}": "5"} {
		if got, err := read(text); err != nil || string(got.Below.Odd) != want {
			t.Errorf("%q: %q, %v, want %s", text, got.Below.Odd, err, want)
		}
	}
}

// Of a number that can't be read it is told which numbers are good; of one that can,
// only if it is none of them; of what is no number, what it must be at all.
func TestRequire_unreadableNumber_tellsTheRange(t *testing.T) {
	for text, want := range map[string]string{
		"port: 5":            "",
		"port: 11":           "line 1: port: must be from 1 to 10",
		"port: x":            `line 1: port: must be from 1 to 10, and not "x"`,
		"on: x\nport: x":     `line 1: on: must be true or false, and not "x"; line 2: port: must be from 1 to 10, and not "x"`,
		"many: x\nport: 11":  `line 1: many: must be a whole number from 0 to 4294967295, and not "x"; line 2: port: must be from 1 to 10`,
		"on: x\nport: 5":     `line 1: on: must be true or false, and not "x"`,
		"name: [x]\nport: 5": "line 1: name: must be text, and not a list",
	} {
		document, err := Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		var s sample
		document.Read(&s)
		document.At("port").Require(s.Port >= 1 && s.Port <= 10, "must be from 1 to 10")
		document.At("on").Require(s.On || !document.At("on").Written(), "must be on")
		document.At("name").Require(s.Name == "", "must be nothing")
		got := ""
		if err := document.Err(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}

func TestAt_paths_haveTheirPlace(t *testing.T) {
	root, err := Parse([]byte("a:\n  b: [x, {c: 1}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if !root.Valid() || root.Err() != nil {
		t.Errorf("faults of nothing: %v", root.Err())
	}
	for _, path := range []string{"a.b[1].d", "a.b[1].c", "a.b[2].c", "a.x.y", "z"} {
		at := root.At(path)
		if at.Written() != (path == "a.b[1].c") || at.Null() == at.Written() || !at.Valid() {
			t.Errorf("%s: written %v, null %v", path, at.Written(), at.Null())
		}
		at.AddError("%s is wrong", "it")
		at.Require(false, "must be more than wrong") // which it is already
	}
	root.At("a.b[0]").Require(true, "must not be told")
	const want = "line 1: z: it is wrong; line 2: a.x.y: it is wrong; line 2: a.b[2].c: it is wrong; line 2: a.b[1].d: it is wrong; line 2: a.b[1].c: it is wrong"
	if got := fmt.Sprint(root.Err()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if root.Valid() || root.At("a").Valid() || root.At("a.b").Valid() || !root.At("a.b[0]").Valid() {
		t.Error("what is sound, and what is not?")
	}
}

func FuzzRead(f *testing.F) {
	f.Add("name: x\nwords: [a]\nheaders: {a: &x b, <<: {c: d}}\nbelow:\n  size: l\n")
	f.Add("a: &x {b: 1}\nc: {<<: *x}\n--- !t\n? |\n  a\n: >-\n  b\n...\n")
	f.Add("! 0000000000000000000000000000000000000")
	f.Fuzz(func(t *testing.T, text string) {
		_, err := read(text)
		var faults Faults
		if err != nil && !errors.As(err, &faults) {
			t.Fatalf("%T", err)
		}
		for _, fault := range faults {
			if fault.Line < 1 || fault.Line > len(lineBreak().Split(text, -1)) || fault.Column < 1 || fault.Reason == "" {
				t.Errorf("%+v", fault)
			}
		}
	})
}

// What is JSON is the same as YAML.
func FuzzFromJSON(f *testing.F) {
	f.Add(`{"b": ["1", 1, "true", null, "", "a: b", "x\ny", "~", " ", "- a", "0x1", "1e3", "2026-01-01"], "a": {"<<": "=", "": []}}`)
	f.Add(`"\u2028\ufeff\u0007 \\ é"`)
	f.Fuzz(func(t *testing.T, text string) {
		var want, got any
		if json.Unmarshal([]byte(text), &want) != nil {
			return
		}
		text = string(must(json.Marshal(want)))
		out, err := FromJSON([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.Load(out, &got); err != nil {
			t.Fatalf("%s\nof %s: %v", out, text, err)
		}
		if back := must(json.Marshal(got)); !sameJSON(string(back), text) {
			t.Errorf("%s became %s, which is %s", text, out, back)
		}
	})
}

func sameJSON(a, b string) bool {
	var x, y any
	return json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil && reflect.DeepEqual(x, y)
}

func must(text []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return text
}

func TestFromJSON_texts_stayTexts(t *testing.T) {
	out, err := FromJSON([]byte(`{"zone": "a", "list": [{"b": 1, "a": "1"}, []], "long": "` + strings.Repeat("word ", 40) + `end", "none": null}`))
	want := "zone: a\nlist:\n- b: 1\n  a: \"1\"\n- []\nlong: " + strings.Repeat("word ", 40) + "end\nnone: null\n"
	if diff := cmp.Diff(want, string(out)); err != nil || diff != "" {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
	if _, err := FromJSON([]byte("{")); err == nil || !strings.Contains(err.Error(), "read JSON") {
		t.Errorf("got %v", err)
	}
}

// YAML 1.1 has more booleans, numbers and times than YAML 1.2. Envoy reads it, and
// so do Python, Ruby and Helm.
func TestFromJSON_textThatYAML11ReadsOtherwise_isQuoted(t *testing.T) {
	for _, text := range []string{
		"y", "Y", "n", "N", "yes", "Yes", "YES", "no", "No", "NO", "nO", "on", "On", "ON", "off", "Off", "OFF", "true", "True", "TRUE", "false", "False", "FALSE",
		"null", "Null", "NULL", "~", "", "1", "01", "0x1f", "0X1F", "0o17", "1e3", "1E3", "1_000", "1:30", "190:20:30", "+1", "-1", "1.", ".5", "1.5e-3",
		".inf", "-.INF", ".nan", "inf", "Infinity", "nan", "2026-01-02", "2026-01-02T03:04:05Z", "2026-01-02 03:04:05", "100.64.0.1", "=", "<<",
	} {
		out, err := FromJSON(must(json.Marshal(map[string]string{"v": text})))
		if want := "v: " + strconv.Quote(text) + "\n"; err != nil || string(out) != want {
			t.Errorf("%q: got %s, want %s, %v", text, out, want, err)
		}
	}
	for _, text := range []string{"west", "nobody", "yesterday", "5s", "0.500s", "a1", "fd7a::1", ".upstream_rq_time", "infra", "e3"} {
		out, err := FromJSON(must(json.Marshal(map[string]string{"v": text})))
		if want := "v: " + text + "\n"; err != nil || string(out) != want {
			t.Errorf("%q: got %s, want %s, %v", text, out, want, err)
		}
	}
}
