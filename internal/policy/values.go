package policy

import (
	"fmt"
	"reflect"
	"strings"
)

// Values are the policies of all services by name, each with the value of every
// key as people read it: "health_check.timeout" is "1s". Those under "" hold for
// all services that have none of their own.
func (p Policy) Values() map[string]map[string]string {
	all := map[string]map[string]string{"": valuesOf(p.Defaults)}
	for name, s := range p.Services {
		all[name] = valuesOf(s)
	}
	return all
}

// Values are the values of every key as people read them.
func (p Ingress) Values() map[string]string { return valuesOf(p) }

func valuesOf(policy any) map[string]string {
	values := make(map[string]string)
	gather(values, "", reflect.ValueOf(policy))
	return values
}

func gather(into map[string]string, path string, v reflect.Value) {
	if text, ok := v.Interface().(fmt.Stringer); ok {
		into[path] = text.String()
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			gather(into, strings.TrimPrefix(path+"."+v.Type().Field(i).Tag.Get("yaml"), "."), v.Field(i))
		}
	case reflect.Slice:
		if v.Type().Elem() == reflect.TypeFor[RouteRule]() {
			for i := range v.Len() {
				gather(into, fmt.Sprintf("%s[%d]", path, i), v.Index(i))
			}
			return
		}
		all := make([]string, v.Len())
		for i := range all {
			all[i] = fmt.Sprint(v.Index(i).Interface())
		}
		into[path] = strings.Join(all, ", ")
	default:
		into[path] = fmt.Sprint(v.Interface())
	}
}
