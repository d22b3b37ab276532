package main

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func env(kv map[string]string) func(string) string {
	return func(k string) string { return kv[k] }
}

// labEnv is what compose passes without a .env, realEnv with a whole one.
func labEnv() map[string]string {
	return map[string]string{
		"TS_ENVOY_CONTROL_PLANE_HOST": labControlPlane, "LAB_HEADSCALE": "1", "LAB_INTERNAL": "true",
	}
}

func realEnv() map[string]string {
	return map[string]string{
		"LAB_HAS_AUTHKEY": "yes", "LAB_HAS_API_URL": "yes", "LAB_HAS_API_TOKEN": "yes",
		"TS_ENVOY_CONTROL_URL":        "https://controlplane.tailscale.com",
		"TS_ENVOY_CONTROL_PLANE_HOST": "tsnet-dynamic-eds.tail1234.ts.net",
		"LAB_HEADSCALE":               "0", "LAB_INTERNAL": "false",
	}
}

func TestCheckEnv_labOrRealTailnet_isAccepted(t *testing.T) {
	for _, e := range []map[string]string{labEnv(), realEnv()} {
		if err := checkEnv(env(e)); err != nil {
			t.Errorf("checkEnv(%v) = %v", e, err)
		}
	}
}

func TestCheckEnv_halfASwitch_namesWhatIsMissing(t *testing.T) {
	for key, name := range map[string]string{
		"LAB_HAS_AUTHKEY": "TS_ENVOY_AUTHKEY", "TS_ENVOY_CONTROL_URL": "TS_ENVOY_CONTROL_URL",
		"TS_ENVOY_CONTROL_PLANE_HOST": "TS_ENVOY_CONTROL_PLANE_HOST", "LAB_HEADSCALE": "LAB_HEADSCALE=0",
		"LAB_INTERNAL": "LAB_INTERNAL=false", "LAB_HAS_API_URL": "TS_ENVOY_API_URL", "LAB_HAS_API_TOKEN": "TS_ENVOY_API_TOKEN",
	} {
		half := realEnv()
		half[key] = labEnv()[key]
		err := checkEnv(env(half))
		if err == nil {
			t.Errorf("without %s: no error", name)
			continue
		}
		if _, missing, _ := strings.Cut(err.Error(), "missing: "); !strings.HasPrefix(missing, name) {
			t.Errorf("without %s: %v", name, err)
		}
	}
}

func TestWriteBootstrap_host_isInIt(t *testing.T) {
	target := filepath.Join(t.TempDir(), "envoy.yaml")
	for range 2 { // the lab comes up again on the same volumes
		if err := writeBootstrap(target, "cp.example.ts.net"); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(target)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"address: cp.example.ts.net", "port_value: 18000", `address: "100.100.100.100"`, "local_cluster_name: tailxds-callers", "cluster: server"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the bootstrap lacks %q:\n%s", want, text)
		}
	}
	if err := writeBootstrap(target, ""); err == nil || !strings.Contains(err.Error(), "TS_ENVOY_CONTROL_PLANE_HOST") {
		t.Errorf("without a name: %v", err)
	}
}

func readAll(t *testing.T, paths ...string) []string {
	t.Helper()
	var texts []string
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(b))
	}
	return texts
}

func TestCertificates_renewal_onlyWhenNeeded(t *testing.T) {
	private, shared := t.TempDir(), t.TempDir()
	files := []string{
		filepath.Join(shared, "ca.pem"),
		filepath.Join(private, "tls", "headscale.crt"), filepath.Join(private, "tls", "headscale.key"),
	}
	now := time.Now()
	makeAt := func(at time.Time) []string {
		if err := certificates(private, shared, os.Getuid(), at); err != nil {
			t.Fatal(err)
		}
		return readAll(t, files...)
	}

	first := makeAt(now)
	pair, err := tls.X509KeyPair([]byte(first[1]), []byte(first[2]))
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(first[0]))
	if _, err := leaf.Verify(x509.VerifyOptions{DNSName: "headscale", Roots: roots}); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(files[2]); err != nil || info.Mode().Perm() != 0o400 {
		t.Errorf("the key's mode is %v (%v), want 0400", info.Mode().Perm(), err)
	}

	if again := makeAt(now.Add(time.Hour)); again[1] != first[1] || again[0] != first[0] {
		t.Error("a certificate that is good was made anew")
	}
	renewed := makeAt(now.Add(certLife - renewLeft + time.Hour))
	if renewed[1] == first[1] || renewed[0] == first[0] {
		t.Error("a certificate that ends within a month was kept")
	}
	if err := replaceFile(files[1], []byte("torn"), 0o444); err != nil {
		t.Fatal(err)
	}
	if healed := makeAt(now.Add(certLife)); !strings.HasPrefix(healed[1], "-----BEGIN CERTIFICATE") {
		t.Error("a torn certificate was kept")
	}
}
