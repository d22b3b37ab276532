package harness

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tailxds/tailxds/integration/repository"

	"tailscale.com/client/local"

	"github.com/tailxds/tailxds/integration/selfsigned"
)

// Tailnet is a real one: the lab's headscale, by the lab's own configuration, on a
// host of its own, and machines that join it. Its relay is there, but all hosts
// are on one link and need none.
type Tailnet struct {
	*Rig
	server *Host
	dir    string // headscale's files
	url    string // headscale's
	apiKey string
	trust  string // the setting by which programs trust headscale's certificate
	client *http.Client

	headscale, tailscaled, tailscale string // programs
}

// labPolicy sets which devices may have which tag, and may connect where.
const labPolicy = "lab/headscale/policy.hujson"

// Tailnet starts headscale, and waits until it answers.
func (r *Rig) Tailnet() *Tailnet {
	r.t.Helper()
	t := &Tailnet{Rig: r, server: r.link("headscale"), dir: filepath.Join(r.dir, "headscale")}
	t.url = "https://" + net.JoinHostPort(t.server.V4.String(), "8443")
	for name, to := range map[string]*string{"headscale": &t.headscale, "tailscaled": &t.tailscaled, "tailscale": &t.tailscale} {
		var err error
		if *to, err = repository.Script(r.ctx, "offline/tailnet", name); err != nil {
			r.t.Fatalf("get %s: %v", name, err)
		}
	}
	err := os.Mkdir(t.dir, 0o700)
	if err == nil {
		err = t.certify()
	}
	if err == nil {
		_, err = t.server.start(false, "headscale", "env", append(t.settings(), t.headscale, "serve", "--config", t.config())...)
	}
	if err != nil {
		r.t.Fatalf("start headscale: %v", err)
	}
	r.Await("headscale answers", func() error {
		printed, err := t.cli("apikeys", "create", "--expiration", "24h")
		t.apiKey = strings.TrimSpace(printed)
		return err
	})
	return t
}

// link adds a machine whose addresses are outside of the tailnet's ranges.
func (r *Rig) link(name string) *Host {
	r.t.Helper()
	n := byte(r.number())
	return r.HostAt(name, netip.AddrFrom4([4]byte{10, 77, 0, n}), netip.AddrFrom16([16]byte{0xfd, 0x77, 15: n}))
}

func (t *Tailnet) config() string { return repository.Path("lab/headscale/config.yaml") }

// settings are what differs from the lab's configuration: where things are.
func (t *Tailnet) settings() []string {
	at := func(name string) string { return filepath.Join(t.dir, name) }
	return []string{
		"HEADSCALE_SERVER_URL=" + t.url,
		"HEADSCALE_UNIX_SOCKET=" + at("socket"),
		"HEADSCALE_TLS_CERT_PATH=" + at("cert.pem"),
		"HEADSCALE_TLS_KEY_PATH=" + at("key.pem"),
		"HEADSCALE_NOISE_PRIVATE_KEY_PATH=" + at("noise.key"),
		"HEADSCALE_DERP_SERVER_PRIVATE_KEY_PATH=" + at("derp.key"),
		"HEADSCALE_DATABASE_SQLITE_PATH=" + at("db.sqlite"),
		"HEADSCALE_POLICY_PATH=" + repository.Path(labPolicy),
	}
}

// cli runs one of headscale's own commands.
func (t *Tailnet) cli(args ...string) (string, error) {
	return t.server.Run("env", append(append(t.settings(), t.headscale, "--config", t.config()), args...)...)
}

// certify makes headscale a certificate, which signs itself, and has this process
// trust it.
func (t *Tailnet) certify() error {
	cert, err := selfsigned.Certificate(t.server.V4.String())
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return err
	}
	certFile, keyFile := filepath.Join(t.dir, "cert.pem"), filepath.Join(t.dir, "key.pem")
	roots := x509.NewCertPool()
	roots.AddCert(cert.Leaf)
	t.trust = "SSL_CERT_FILE=" + certFile
	t.client = &http.Client{Timeout: maxWait, Transport: &http.Transport{
		DialContext: t.server.Dial, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	}}
	return errors.Join(os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}), 0o600),
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
}

// api asks headscale's API, with a body or without one, and reads the answer into
// a value.
func (t *Tailnet) api(method, path string, body, into any) error {
	var sent bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&sent).Encode(body); err != nil {
			return err
		}
	}
	request, err := http.NewRequestWithContext(t.ctx, method, t.url+"/api/v1/"+path, &sent)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+t.apiKey)
	response, err := t.client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s of headscale's %s: %s: %s", method, path, response.Status, text)
	}
	if err != nil || into == nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// authKey is a key that a machine joins with, and its tags.
func (t *Tailnet) authKey(tags ...string) string {
	t.t.Helper()
	var made struct{ PreAuthKey struct{ Key string } }
	err := t.api(http.MethodPost, "preauthkey", map[string]any{"aclTags": tags, "expiration": time.Now().Add(time.Hour)}, &made)
	if err != nil {
		t.t.Fatalf("make an auth key: %v", err)
	}
	return made.PreAuthKey.Key
}

// Member is a machine of the tailnet, as headscale knows it.
type Member struct {
	*Host
	// ID is headscale's, Address the tailnet's.
	ID      string
	Address netip.Addr
	// Node asks tailscaled; nil of a control plane.
	Node *local.Client
}

// Join adds a machine on which tailscaled runs, and waits until headscale calls it
// online.
func (t *Tailnet) Join(name string, tags ...string) *Member {
	t.t.Helper()
	h := t.link(name)
	dir := filepath.Join(t.dir, name)
	socket := filepath.Join(dir, "socket")
	err := os.Mkdir(dir, 0o700)
	if err == nil {
		_, err = h.start(false, name+"-tailscaled", "env", t.trust, t.tailscaled, "--no-logs-no-support", "--statedir", dir, "--socket", socket)
	}
	if err != nil {
		t.t.Fatal(err)
	}
	t.Await(name+" runs tailscaled", func() error {
		_, err := os.Stat(socket)
		return err
	})
	// What is the machine's outside of the namespace, its resolver, is left alone.
	if _, err := h.Run(t.tailscale, "--socket", socket, "up", "--login-server", t.url, "--auth-key", t.authKey(tags...),
		"--hostname", name, "--accept-dns=false", "--netfilter-mode=off"); err != nil {
		t.t.Fatal(err)
	}
	m := t.member(h)
	m.Node = &local.Client{Socket: socket, UseSocketOnly: true}
	return m
}

// member waits until headscale calls a machine online.
func (t *Tailnet) member(h *Host) *Member {
	t.t.Helper()
	m := &Member{Host: h}
	t.Await(h.Name+" is online", func() error {
		var all struct {
			Nodes []struct {
				ID, GivenName string
				Online        bool
				IPAddresses   []netip.Addr
			}
		}
		if err := t.api(http.MethodGet, "node", nil, &all); err != nil {
			return err
		}
		for _, n := range all.Nodes {
			if n.GivenName == h.Name && n.Online && len(n.IPAddresses) > 0 {
				m.ID, m.Address = n.ID, n.IPAddresses[0]
				return nil
			}
		}
		return fmt.Errorf("headscale has %+v", all.Nodes)
	})
	return m
}

// SetTags replaces a machine's tags by headscale's API.
func (t *Tailnet) SetTags(m *Member, tags ...string) error {
	return t.api(http.MethodPost, "node/"+m.ID+"/tags", map[string]any{"tags": tags}, nil)
}
