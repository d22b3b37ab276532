package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Host is an endpoint as an Envoy sees it.
type Host struct {
	Address  string // ADDRESS:PORT
	Name     string
	Region   string
	Weight   int
	Priority int
	Healthy  bool
	Requests int // sent to it since this Envoy knows it
}

func (h Host) String() string {
	health := "healthy"
	if !h.Healthy {
		health = "unhealthy"
	}
	return fmt.Sprintf("%s (%s, weight %d, %s)", h.Name, h.Region, h.Weight, health)
}

// admin asks the admin page of the Envoy beside a service.
func (l *Lab) admin(ctx context.Context, service, path string, answer any) error {
	output, err := l.Probe.Get(ctx, l.Container(service), "http://127.0.0.1:9901/"+path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(output), answer); err != nil {
		return fmt.Errorf("reading %s of %s's Envoy: %w", path, service, err)
	}
	return nil
}

// clusters are the fields of Envoy's /clusters?format=json that we need.
type clusters struct {
	Statuses []struct {
		Name  string `json:"name"`
		Hosts []struct {
			Address struct {
				Socket struct {
					Address string `json:"address"`
					Port    int    `json:"port_value"`
				} `json:"socket_address"`
			} `json:"address"`
			Health map[string]any `json:"health_status"`
			Name   string         `json:"hostname"`
			Weight int            `json:"weight"`
			// Absent means 0.
			Priority int `json:"priority"`
			Locality struct {
				Region string `json:"region"`
			} `json:"locality"`
			Stats []struct {
				Name  string `json:"name"`
				Value int    `json:"value,string"`
			} `json:"stats"`
		} `json:"host_statuses"`
	} `json:"cluster_statuses"`
}

// Hosts are the endpoints of the default service in the Envoy beside a service,
// by name.
func (l *Lab) Hosts(ctx context.Context, service string) ([]Host, error) {
	var answer clusters
	if err := l.admin(ctx, service, "clusters?format=json", &answer); err != nil {
		return nil, err
	}
	var hosts []Host
	for _, cluster := range answer.Statuses {
		if cluster.Name != "server" {
			continue
		}
		for _, h := range cluster.Hosts {
			requests := 0
			for _, stat := range h.Stats {
				if stat.Name == "rq_total" {
					requests = stat.Value
				}
			}
			hosts = append(hosts, Host{
				Requests: requests,
				Address:  fmt.Sprintf("%s:%d", h.Address.Socket.Address, h.Address.Socket.Port),
				Name:     h.Name,
				Region:   h.Locality.Region,
				Weight:   h.Weight,
				Priority: h.Priority,
				Healthy:  healthy(h.Health),
			})
		}
	}
	slices.SortFunc(hosts, func(a, b Host) int { return strings.Compare(a.Name, b.Name) })
	return hosts, nil
}

// healthy: any failure that Envoy names is a field of its own; the one that is
// always there is the health that the control plane gave.
func healthy(status map[string]any) bool {
	for name := range status {
		if name != "eds_health_status" {
			return false
		}
	}
	eds := status["eds_health_status"]
	return eds == "HEALTHY" || eds == "UNKNOWN" || eds == nil
}

// Serves returns nil if the Envoy beside a service has just these weights, all
// of healthy endpoints.
func (l *Lab) Serves(ctx context.Context, service string, weights map[string]int) error {
	hosts, err := l.Hosts(ctx, service)
	if err != nil {
		return err
	}
	found := map[string]int{}
	for _, host := range hosts {
		if host.Healthy {
			found[host.Name] = host.Weight
		}
	}
	if len(found) != len(hosts) || !maps.Equal(found, weights) {
		return fmt.Errorf("%s's Envoy has %v, not %v", service, hosts, weights)
	}
	return nil
}

// Sees returns nil if the Envoy beside a service finds the host healthy, or not.
func (l *Lab) Sees(ctx context.Context, service, host string, healthy bool) error {
	hosts, err := l.Hosts(ctx, service)
	if err != nil {
		return err
	}
	for _, h := range hosts {
		if h.Name == host && h.Healthy == healthy {
			return nil
		}
	}
	return fmt.Errorf("%s's Envoy has %v; %s should be there with healthy=%t", service, hosts, host, healthy)
}

// Resources are what the control plane has given the Envoy beside a service, by
// type and name, without versions and times: the same resources compare equal
// whoever served them.
func (l *Lab) Resources(ctx context.Context, service string) (map[string]string, error) {
	var dump struct {
		Configs []map[string]json.RawMessage `json:"configs"`
	}
	if err := l.admin(ctx, service, "config_dump?include_eds", &dump); err != nil {
		return nil, err
	}
	found := map[string]string{}
	for _, config := range dump.Configs {
		for section, raw := range config {
			if !strings.HasPrefix(section, "dynamic_") {
				continue
			}
			var entries []any
			if err := json.Unmarshal(raw, &entries); err != nil {
				return nil, fmt.Errorf("reading %s of %s's Envoy: %w", section, service, err)
			}
			for i, entry := range entries {
				// Encoding a map sorts its keys.
				text, err := json.Marshal(timeless(entry))
				if err != nil {
					return nil, fmt.Errorf("writing %s again: %w", section, err)
				}
				found[fmt.Sprintf("%s/%d", section, i)] = string(text)
			}
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s's Envoy has no resources from a control plane", service)
	}
	return found, nil
}

// timeless takes off, at every depth, what says when and in which version a
// resource came.
func timeless(value any) any {
	switch value := value.(type) {
	case map[string]any:
		kept := map[string]any{}
		for name, field := range value {
			if name != "last_updated" && name != "version_info" {
				kept[name] = timeless(field)
			}
		}
		return kept
	case []any:
		kept := make([]any, len(value))
		for i, item := range value {
			kept[i] = timeless(item)
		}
		return kept
	default:
		return value
	}
}
