package controlplane

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"reflect"
	"testing"
)

// A document that a control plane kept at the time of v0.1.0, with operators'
// words, a device that is offline and one that is held. It is never made anew:
// what was kept must be read by all versions from then on, and what they keep by
// that one.
func TestLoadState_olderVersions_areRead(t *testing.T) {
	document, err := os.ReadFile("testdata/memory-1.json")
	if err != nil {
		t.Fatal(err)
	}
	kept, err := decodeState(document)
	if err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(kept)
	if err != nil {
		t.Fatal(err)
	}
	var was, is map[string]any
	if err := json.Unmarshal(document, &was); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(again, &is); err != nil {
		t.Fatal(err)
	}
	if lost := lacks(was, is, ""); len(lost) > 0 {
		t.Errorf("of what was kept this version does not know %v", lost)
	}
	if len(kept.Words) != 2 || len(kept.Memory.Services["shop"].Held) != 1 {
		t.Errorf("it was read as %+v", kept)
	}

	// What a later version adds, anywhere, is passed over.
	later, err := json.Marshal(more(was))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Count(later, []byte(`"mood"`)) < 10 {
		t.Fatalf("little was added: %s", later)
	}
	if of, err := decodeState(later); err != nil || !reflect.DeepEqual(of, kept) {
		t.Errorf("of a later version's document there is %+v (%v), want %+v", of, err, kept)
	}
}

// lacks are the paths that a value has and another lacks, or has otherwise.
func lacks(value, other any, path string) []string {
	var all []string
	switch v := value.(type) {
	case map[string]any:
		o, _ := other.(map[string]any)
		for key, of := range v {
			all = append(all, lacks(of, o[key], path+"."+key)...)
		}
	case []any:
		o, _ := other.([]any)
		if len(o) != len(v) {
			return []string{path}
		}
		for i := range v {
			all = append(all, lacks(v[i], o[i], path)...)
		}
	default:
		if value != other {
			return []string{path}
		}
	}
	return all
}

// keyed are objects whose keys are names, not fields.
var keyed = map[string]bool{"services": true, "offline": true, "witnessed": true}

// more is a document with one field more in each object.
func more(value any) any {
	switch v := value.(type) {
	case map[string]any:
		next := maps.Clone(v)
		for key, of := range v {
			next[key] = more(of)
			if names, is := next[key].(map[string]any); is && keyed[key] {
				delete(names, "mood")
			}
		}
		next["mood"] = map[string]any{"fine": []string{"today"}}
		return next
	case []any:
		next := make([]any, len(v))
		for i := range v {
			next[i] = more(v[i])
		}
		return next
	default:
		return value
	}
}
