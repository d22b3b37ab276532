package harness

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"

	"github.com/tailxds/tailxds/integration/repository"
)

// Caddy is one in front of an Envoy on the same host.
type Caddy struct {
	host    *Host
	dir     string // its data
	process *process
}

// Caddy starts a Caddy on the host by a Caddyfile, and waits until it takes
// connections for a name. Its certificates are by an authority of its own, for
// no other is within reach. It skips the test where no Caddy can be had.
func (h *Host) Caddy(caddyfile, name string) *Caddy {
	r := h.rig
	r.t.Helper()
	program, err := repository.Script(r.ctx, "program", "caddy")
	if err != nil {
		r.t.Skipf("no Caddy can be had: %v", err)
	}
	c := &Caddy{host: h, dir: filepath.Join(r.dir, h.Name+"-caddy")}
	config := filepath.Join(r.dir, h.Name+".caddyfile")
	const global = "{\n\tlocal_certs\n\tskip_install_trust\n\tadmin off\n}\n"
	if err := os.WriteFile(config, []byte(global+caddyfile), 0o600); err != nil {
		r.t.Fatal(err)
	}
	if c.process, err = h.start(false, h.Name+"-caddy", "env", "HOME="+c.dir, "XDG_DATA_HOME="+c.dir, "XDG_CONFIG_HOME="+c.dir,
		program, "run", "--adapter", "caddyfile", "--config", config); err != nil {
		r.t.Fatal(err)
	}
	r.Await("Caddy takes connections for "+name, func() error {
		connection, err := h.Dial(r.ctx, "tcp", h.V4.String()+":443")
		if err != nil {
			return err
		}
		defer func() { _ = connection.Close() }()
		return tls.Client(connection, c.ClientTLS(name)).HandshakeContext(r.ctx)
	})
	return c
}

// ClientTLS is what a client that trusts this Caddy needs to know, to ask for a
// name.
func (c *Caddy) ClientTLS(name string) *tls.Config {
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(filepath.Join(c.dir, "caddy/pki/authorities/local/root.crt"))
	if err == nil {
		roots.AppendCertsFromPEM(pem)
	}
	return &tls.Config{ServerName: name, RootCAs: roots, MinVersion: tls.VersionTLS12}
}

// Stop kills it.
func (c *Caddy) Stop() {
	c.host.rig.t.Helper()
	if err := c.process.stop(); err != nil {
		c.host.rig.t.Fatal(err)
	}
}

// Program starts a program on the host until the test ends: with its
// configuration in a file that the first flag names, and further flags.
func (h *Host) Program(program, config, flag string, flags ...string) {
	r := h.rig
	r.t.Helper()
	name := h.Name + "-" + filepath.Base(program)
	file := filepath.Join(r.dir, name+".conf")
	err := os.WriteFile(file, []byte(config), 0o600)
	if err == nil {
		_, err = h.start(false, name, program, append([]string{flag, file}, flags...)...)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}
