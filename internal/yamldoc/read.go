package yamldoc

import (
	"encoding"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"

	"go.yaml.in/yaml/v4"
)

// Reader is a value that reads itself.
type Reader interface {
	// ReadSection reads the section, which is not null, and adds its faults.
	ReadSection(from Section)
}

// Read fills the value that into points to, and adds a fault for all that does not
// fit. Structs have their keys as tags `yaml:"key"`. A missing key, and a struct's
// key without a value, keeps the value; a list or a map replaces it.
func (s Section) Read(into any) { s.read(reflect.ValueOf(into).Elem()) }

// Fits reads like [Section.Read] and reports whether all fits. It adds no faults.
func (s Section) Fits(into any) bool {
	s.faults = new(Faults)
	s.Read(into)
	return len(*s.faults) == 0
}

func (s Section) read(into reflect.Value) {
	if s.Null() {
		s.readNull(into)
		return
	}
	switch itself := into.Addr().Interface().(type) {
	case Reader:
		itself.ReadSection(s)
		return
	case encoding.TextUnmarshaler:
		s.readText(itself)
		return
	}
	switch into.Kind() {
	case reflect.Struct:
		s.readStruct(into)
	case reflect.Map:
		s.readMap(into)
	case reflect.Slice:
		s.readList(into)
	case reflect.Pointer:
		to := reflect.New(into.Type().Elem())
		s.read(to.Elem())
		into.Set(to)
	default:
		s.readOne(into)
	}
}

// readNull handles a key without a value as if it were missing, since its value may
// have been commented out.
func (s Section) readNull(into reflect.Value) {
	switch into.Kind() {
	case reflect.Struct:
	case reflect.Map, reflect.Slice, reflect.Pointer, reflect.Interface:
		into.SetZero()
	default:
		s.AddError("has no value: write one, or leave the key out")
	}
}

func (s Section) readStruct(into reflect.Value) {
	fields := make(map[string]int)
	for i := range into.NumField() {
		fields[into.Type().Field(i).Tag.Get("yaml")] = i
	}
	for _, e := range s.Entries() {
		i, known := fields[e.Name]
		if !known {
			e.AtKey.AddUnknownKeys(slices.Sorted(maps.Keys(fields)))
			continue
		}
		e.read(into.Field(i))
	}
}

func (s Section) readMap(into reflect.Value) {
	all := reflect.MakeMap(into.Type())
	for _, e := range s.Entries() {
		value := reflect.New(into.Type().Elem()).Elem()
		e.read(value)
		all.SetMapIndex(reflect.ValueOf(e.Name), value)
	}
	into.Set(all)
}

func (s Section) readList(into reflect.Value) {
	if s.node.Kind != yaml.SequenceNode {
		s.AddError("must be a list, and not %s", describe(s.node))
		return
	}
	all := reflect.MakeSlice(into.Type(), len(s.node.Content), len(s.node.Content))
	for i := range s.node.Content {
		s.Item(i).read(all.Index(i))
	}
	into.Set(all)
}

func (s Section) readText(into encoding.TextUnmarshaler) {
	if s.node.Kind != yaml.ScalarNode {
		s.AddError("must be one value, and not %s", describe(s.node))
		return
	}
	if err := into.UnmarshalText([]byte(s.node.Value)); err != nil {
		s.AddError("%v", err)
	}
}

// readOne reads what the library can: texts, numbers, and any value.
func (s Section) readOne(into reflect.Value) {
	want, tag := "text", ""
	switch into.Kind() {
	case reflect.Bool:
		want, tag = "true or false", "!!bool"
	case reflect.Uint16:
		want, tag = fmt.Sprintf("a whole number from 0 to %d", math.MaxUint16), intTag
	case reflect.Uint32:
		want, tag = fmt.Sprintf("a whole number from 0 to %d", uint32(math.MaxUint32)), intTag
	}
	if (tag == "" || s.node.ShortTag() == tag) && s.node.Load(into.Addr().Interface()) == nil {
		return
	}
	if s.faults.isFull() {
		return
	}
	s.AddError("must be %s, and not %s", want, describe(s.node))
	(*s.faults)[len(*s.faults)-1].needsNumber = tag == intTag
}

const intTag = "!!int"
