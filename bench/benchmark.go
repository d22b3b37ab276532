package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"sync"
)

// benchmark is one of the integration tests, on real Envoys in network namespaces.
// It is run once for all rows that are of it, and needs root.
type benchmark struct {
	name  string
	cases []string

	once   sync.Once
	values map[string]map[string]float64
	err    error
}

// measure runs the benchmark, and gives the values of its units by its cases' names.
func (m *benchmark) measure(ctx context.Context) (map[string]map[string]float64, error) {
	m.once.Do(func() {
		cmd := exec.CommandContext(ctx, "go", "test", "./envoys", "-run", "^$", "-bench", "^"+m.name+"$", "-benchtime", "1x")
		cmd.Dir = "../integration"
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := cmd.Run(); err != nil {
			m.err = fmt.Errorf("measure by %s: %w\n%s", strings.Join(cmd.Args, " "), err, said.String())
			return
		}
		m.values, m.err = m.read(said.String())
	})
	return m.values, m.err
}

// read reads lines such as "BenchmarkRegions/nearest-2  1  10.1 crossing-%", which
// end in pairs of a value and its unit.
func (m *benchmark) read(text string) (map[string]map[string]float64, error) {
	all := make(map[string]map[string]float64)
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || !strings.HasPrefix(fields[0], m.name+"/") {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(fields[0], m.name+"/"), "-")
		values := make(map[string]float64)
		for i := 2; i+1 < len(fields); i += 2 {
			v, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return nil, fmt.Errorf("read %q: %w", line, err)
			}
			values[fields[i+1]] = v
		}
		all[name] = values
	}
	for _, name := range m.cases {
		if len(all[name]) == 0 {
			return nil, fmt.Errorf("%s told nothing of %s:\n%s", m.name, name, text)
		}
	}
	return all, nil
}
