package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tailxds/tailxds/internal/envoy"
)

// labControlPlane is the control plane's name on the lab's own tailnet.
const labControlPlane = "tsnet-dynamic-eds.tailnet.lab"

func prepare(getenv func(string) string, out io.Writer) error {
	if err := checkEnv(getenv); err != nil {
		return err
	}
	for _, dir := range []string{headscaleDir, socketDir, keysDir, controlKeysDir, stateDir} {
		if err := os.Chown(dir, labUser, labUser); err != nil {
			return fmt.Errorf("giving %s to the user it is for: %w", dir, err)
		}
	}
	if err := certificates(headscaleDir, sharedDir, labUser, time.Now()); err != nil {
		return err
	}
	if err := writeBootstrap(filepath.Join(sharedDir, "envoy.yaml"), getenv("TS_ENVOY_CONTROL_PLANE_HOST")); err != nil {
		return err
	}
	// Envoy's container holds nothing but Envoy, and the laptop's nothing but
	// Tailscale: here they find a health check, and the client.
	for _, program := range []string{"lab-init", "client"} {
		if err := install(filepath.Join(programs, program), filepath.Join(sharedDir, program)); err != nil {
			return err
		}
	}
	fmt.Fprintln(out, "certificate, bootstrap and volumes are ready")
	return nil
}

// checkEnv refuses a half-made switch to a real tailnet: compose can't tell one
// setting by another, so .env must change all of them or none.
func checkEnv(getenv func(string) string) error {
	settings := []struct {
		name string
		real bool
	}{
		{"TS_ENVOY_AUTHKEY", getenv("LAB_HAS_AUTHKEY") != ""},
		{"TS_ENVOY_CONTROL_URL", getenv("TS_ENVOY_CONTROL_URL") != ""},
		{"TS_ENVOY_CONTROL_PLANE_HOST", getenv("TS_ENVOY_CONTROL_PLANE_HOST") != labControlPlane},
		{"LAB_HEADSCALE=0", getenv("LAB_HEADSCALE") == "0"},
		{"LAB_INTERNAL=false", getenv("LAB_INTERNAL") == "false"},
		{"TS_ENVOY_API_URL (it may be empty)", getenv("LAB_HAS_API_URL") != ""},
		{"TS_ENVOY_API_TOKEN (it may be empty)", getenv("LAB_HAS_API_TOKEN") != ""},
	}
	var set, missing []string
	for _, s := range settings {
		if s.real {
			set = append(set, s.name)
		} else {
			missing = append(missing, s.name)
		}
	}
	if len(set) == 0 || len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("a real tailnet needs all of its settings in .env (.env.example explains each); there: %s; missing: %s",
		strings.Join(set, ", "), strings.Join(missing, ", "))
}

// writeBootstrap writes the bootstrap of all the lab's Envoys: which of them it
// is, and where, is said on its command line.
func writeBootstrap(target, host string) error {
	if host == "" {
		return errors.New("TS_ENVOY_CONTROL_PLANE_HOST is empty; it is the control plane's MagicDNS name")
	}
	text, err := envoy.BootstrapYAML(envoy.BootstrapConfig{
		ControlPlanes: []envoy.HostPort{{Host: host, Port: envoy.DefaultPort}},
		Node:          "envoy", Cluster: "server",
		Admin: envoy.HostPort{Host: "127.0.0.1", Port: envoy.DefaultAdminPort},
		DNS:   netip.AddrPortFrom(netip.MustParseAddr(envoy.MagicDNS), 53),
	})
	if err != nil {
		return fmt.Errorf("making Envoy's bootstrap: %w", err)
	}
	return replaceFile(target, text, 0o444)
}

// install puts a program of this image where other containers can run it.
func install(source, target string) error {
	program, err := os.ReadFile(source)
	if err != nil {
		return fmt.Errorf("reading a program of this image: %w", err)
	}
	return replaceFile(target, program, 0o555)
}

// replaceFile never leaves half a file, nor writes into one that is in use.
func replaceFile(path string, data []byte, mode os.FileMode) error {
	temp := path + ".new"
	if err := os.RemoveAll(temp); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := os.WriteFile(temp, data, mode); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := os.Chmod(temp, mode); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}
