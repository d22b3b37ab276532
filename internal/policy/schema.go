package policy

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
)

// Schema is the JSON Schema of the policy file, for editors. Keys, words and
// bounds are those of the types and checks by which [Parse] reads; rules on
// what goes together are beyond a schema.
// https://json-schema.org/draft-07
func Schema() ([]byte, error) {
	defaults := Default()
	service := schemaOf(reflect.ValueOf(defaults.Defaults), "", defaults.Defaults.checks())
	all := schemaOf(reflect.ValueOf(defaults.Defaults), "", defaults.Defaults.checks())
	properties := all["properties"].(schema)
	delete(properties, "hosts") // these belong to one service
	delete(properties, "routes")
	delete(properties, "listen")
	properties["protocol"].(schema)["enum"] = protocols()[:len(protocols())-1] // so does tcp
	all["description"] = "What holds for every service that does not say otherwise."
	service["description"] = "The policy of one service. What it leaves out is taken from defaults."

	document := object(schema{
		"defaults": all,
		"ingress":  schemaOf(reflect.ValueOf(defaults.Ingress), "ingress", defaults.Ingress.checks()),
		"services": schema{
			"description":          descriptions()["services"],
			"type":                 orNull("object"),
			"propertyNames":        schema{"pattern": "^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$"},
			"additionalProperties": schema{"$ref": "#/definitions/service"},
		},
	})
	document["$schema"] = "http://json-schema.org/draft-07/schema#"
	document["title"] = "tailxds policy file"
	document["description"] = "How each service is checked and balanced, and from whom Envoys take requests."
	document["definitions"] = schema{"service": service}
	text, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the schema: %w", err)
	}
	return append(text, '\n'), nil
}

type schema map[string]any

// orNull is a type whose value may be left out behind its key.
func orNull(name string) []string { return []string{name, "null"} }

func object(properties schema) schema {
	return schema{"type": orNull("object"), "additionalProperties": false, "properties": properties}
}

// schemaOf describes a struct by its keys, and each key by its type, its default,
// the check on it and what it means.
func schemaOf(v reflect.Value, at string, checks []check) schema {
	properties := make(schema)
	for i := range v.NumField() {
		key := v.Type().Field(i).Tag.Get("yaml")
		path := strings.TrimPrefix(at+"."+key, ".")
		var of schema
		if f := v.Field(i); f.Kind() == reflect.Struct && f.Type() != reflect.TypeFor[HashOn]() {
			of = schemaOf(f, path, checks)
		} else {
			of = schemaOfType(f.Type())
			if path != "listen" {
				of["default"] = defaultOf(f)
			}
		}
		of["description"] = descriptions()[path]
		for _, c := range checks {
			if c.path == strings.TrimPrefix(path, "ingress.") {
				of.hold(c)
			}
		}
		properties[key] = of
	}
	s := object(properties)
	if text := descriptions()[at]; text != "" {
		s["description"] = text
	}
	return s
}

// hold adds what a check wants.
func (s schema) hold(c check) {
	if c.words != nil {
		s["enum"] = c.words
		return
	}
	if c.high > 0 {
		s["minimum"], s["maximum"] = c.low, c.high
		return
	}
	s["description"] = fmt.Sprintf("%s It %s.", s["description"], c.want)
}

// defaultOf is a default as a file would have it.
func defaultOf(v reflect.Value) any {
	switch text := v.Interface().(type) {
	case HashOn:
		return nil
	case fmt.Stringer:
		return text.String()
	case []Statuses:
		return []int64{text[0].First}
	case []string:
		return append([]string{}, text...)
	case []RouteRule:
		return []string{}
	default:
		return text
	}
}

const sizePattern = `^[0-9]{1,9}(B|KiB|MiB|GiB)$`

const durationPattern = `^\+?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ms|s|m|h))+)$`

// schemaOfType is what the text of a type may be.
func schemaOfType(t reflect.Type) schema {
	text := schema{"type": "string", "pattern": durationPattern}
	switch t {
	case reflect.TypeFor[Duration]():
		return schema{"anyOf": []schema{text, {"const": 0}}}
	case reflect.TypeFor[Size]():
		return schema{"type": "string", "pattern": sizePattern}
	case reflect.TypeFor[Interval]():
		return schema{"anyOf": []schema{{"const": Auto}, text}}
	case reflect.TypeFor[Statuses]():
		return schema{"anyOf": []schema{
			{"type": "integer", "minimum": 100, "maximum": 599},
			{"type": "string", "pattern": "^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$"},
		}}
	case reflect.TypeFor[HashOn]():
		one := func(key string) schema {
			of := object(schema{key: schema{"type": "string", "pattern": "^[A-Za-z0-9_-]{1,255}$"}})
			of["type"], of["required"] = "object", []string{key}
			return of
		}
		return schema{"anyOf": []schema{{"const": "source"}, one("header"), one("cookie"), {"type": "null"}}}
	}
	switch t.Kind() {
	case reflect.Struct:
		return schemaOf(reflect.Zero(t), "routes", nil)
	case reflect.Slice:
		return schema{"type": orNull("array"), "items": schemaOfType(t.Elem())}
	case reflect.Map:
		return schema{"type": orNull("object"), "additionalProperties": schemaOfType(t.Elem())}
	case reflect.Bool:
		return schema{"type": "boolean"}
	case reflect.Uint16:
		return schema{"type": "integer", "minimum": 0, "maximum": math.MaxUint16}
	case reflect.Uint32:
		return schema{"type": "integer", "minimum": 0, "maximum": uint32(math.MaxUint32)}
	default:
		return schema{"type": "string"}
	}
}

// descriptions say what each key means.
func descriptions() map[string]string {
	return map[string]string{
		"services":                         "The services by name. One that stands here has its name also while nobody serves it: it answers 503.",
		"ingress":                          "Where every Envoy takes requests, and from whom.",
		"ingress.port":                     "The port of every Envoy, on all addresses of its host.",
		"ingress.allow":                    "Who is let in: tailnet, loopback, and networks such as 10.0.0.0/8. Others' connections are closed.",
		"ingress.trusted_hops":             "How many proxies in front of every Envoy are believed in what x-forwarded-for says of the client.",
		"ingress.access_log":               "Which requests Envoys write as lines of JSON on their standard output.",
		"hosts":                            "Further names under which the service is reached; its own is always one.",
		"routes":                           "What goes to other services. The first rule that matches decides; what none matches goes to the service itself.",
		"routes.path":                      "This path and all below it, in each spelling that servers take for it; without it every path.",
		"routes.headers":                   "Headers that must all be there, with just these values.",
		"routes.service":                   "The service that gets all that matches, with its own timeouts, retries and hash.",
		"routes.split":                     "Several services that get what matches, by their weights.",
		"protocol":                         "What the servers speak. http2 is without TLS (h2c).",
		"listen":                           "With protocol: tcp, the port on which every Envoy takes the service's connections.",
		"load_balancing":                   "How a server is chosen. round_robin has exact shares; ring_hash and maglev need hash_on; the last goes by what servers report of their load (ORCA).",
		"hash_on":                          "What requests have in common that go to the same server: a header, a cookie, or source, the client's address.",
		"slow_start":                       "How long a newcomer's share grows to its weight's. Not with random, ring_hash and maglev.",
		"show_endpoint":                    "Adds the header x-tailxds-endpoint to each answer: the name of the device that gave it.",
		"locality":                         "How regions are treated: docs/balancing.md.",
		"failover":                         "With locality: local, the order in which other regions are asked.",
		"timeout":                          "Of a whole request, retries included.",
		"stream_idle_timeout":              "Ends a request, WebSocket or tcp connection on which nothing has moved for so long; 0 is never.",
		"idle_timeout":                     "Closes a connection to a server that no request has used for so long. It must be shorter than the servers' own; 0 is never.",
		"attempt_timeout":                  "Of each attempt of a request that may be retried.",
		"connect_timeout":                  "Of a new connection to a server.",
		"retries":                          "How often a failed request is tried on another server, where that is safe.",
		"retry_buffer":                     "How much of a request's body is kept to send it again; a request with a longer body is not retried. Each request in flight can take so much of Envoy's memory.",
		"limits":                           "Of one Envoy, to all servers of the service. Beyond them it answers 503.",
		"limits.connections":               "Connections to all servers of the service.",
		"limits.pending":                   "Requests that wait for a connection.",
		"limits.requests":                  "Requests in flight.",
		"limits.retries":                   "Retries under way at the same time. A request that would be one too many fails as its last attempt did.",
		"overprovisioning_factor":          "In percent: with 140, a region keeps its whole weight until fewer than 71 % of its servers are healthy.",
		"health_check":                     "How every Envoy checks every server.",
		"health_check.protocol":            "What the check speaks; auto is what the servers speak, and tcp connects.",
		"health_check.port":                "The port that is checked; 0 is that of requests.",
		"health_check.path":                "What is asked for over HTTP.",
		"health_check.expected_statuses":   "Statuses of HTTP that are healthy, and ranges of them such as 200-299. All others are not.",
		"health_check.host":                "The header Host of a check over HTTP, and the authority of one over gRPC; empty is the first of hosts that is no wildcard, or else the service's name.",
		"health_check.service":             "What grpc.health.v1.Health is asked for; empty is the whole server.",
		"health_check.interval":            "Between two checks by one Envoy; auto grows with the number of Envoys.",
		"health_check.timeout":             "Of one check.",
		"health_check.unhealthy_threshold": "Checks in a row that fail until a server is unhealthy.",
		"health_check.healthy_threshold":   "Checks in a row that pass until it is healthy again.",
		"outlier_detection":                "What ejects a server that passes its checks and fails real requests.",
		"outlier_detection.consecutive_gateway_errors":      "Answers of 502, 503 or 504 in a row (gRPC: UNAVAILABLE, DEADLINE_EXCEEDED) that eject; 0 is none.",
		"outlier_detection.consecutive_connection_failures": "Requests in a row for which a connection could not be opened, broke or gave no answer in time, that eject; 0 is none.",
		"outlier_detection.consecutive_5xx":                 "Answers of any 5xx in a row that eject; 0 is none. One URL that always answers 500 then ejects healthy servers.",
		"outlier_detection.base_ejection_time":              "How long, times how often it happened lately.",
		"outlier_detection.max_ejection_percent":            "How many of the servers may be ejected at once; 0 is at most one.",
	}
}
