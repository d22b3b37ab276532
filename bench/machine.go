package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
)

// machine says on what was measured.
func machine() string {
	return fmt.Sprintf("%d cores (%s), %s of memory, Linux %s, %s, load average %s before the table was written",
		runtime.NumCPU(), field("/proc/cpuinfo", "model name"), field("/proc/meminfo", "MemTotal"),
		firstLine("/proc/sys/kernel/osrelease"), runtime.Version(), loadAverage())
}

// field is a value of one of the kernel's "name: value" files.
func field(path, name string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func firstLine(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return line
}

func loadAverage() string {
	average, _, _ := strings.Cut(firstLine("/proc/loadavg"), " ")
	return average
}
