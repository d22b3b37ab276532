package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tailxds/tailxds/internal/topology"
)

func TestOpen_auto_choosesByWhatIsGiven(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"nothing given: the netmap", Config{}, Netmap},
		{"a control URL alone: the netmap", Config{ControlURL: "https://hs.example.com"}, Netmap},
		{"token and own API: headscale", Config{APIToken: "k", APIURL: "https://hs.example.com"}, Headscale},
		{"token and own control server: headscale", Config{APIToken: "k", ControlURL: "http://headscale:8080"}, Headscale},
		{"token alone: Tailscale", Config{APIToken: "k"}, Tailscale},
		{"token and Tailscale's API: Tailscale", Config{APIToken: "k", APIURL: "https://api.tailscale.com"}, Tailscale},
		{"token and Tailscale's control server: Tailscale", Config{APIToken: "k", ControlURL: "https://controlplane.tailscale.com"}, Tailscale},
		{"the API's URL counts before the control server's", Config{APIToken: "k", APIURL: "https://api.tailscale.com", ControlURL: "https://hs.example.com"}, Tailscale},
		{"a name that only ends like Tailscale's", Config{APIToken: "k", APIURL: "https://nottailscale.com"}, Headscale},
		{"an OAuth client: Tailscale", Config{ClientID: "i", ClientSecret: "s", APIURL: "https://hs.example.com"}, Tailscale},
		{"a file of devices: the file", Config{Devices: "d.yaml", APIToken: "k"}, File},
		{"a name wins", Config{Provider: Headscale, Devices: "d.yaml"}, Headscale},
		{"auto by name", Config{Provider: Auto, APIToken: "k"}, Tailscale},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, err := find(c.cfg); err != nil || got.name != c.want {
				t.Errorf("got %s, %v, want %s", got.name, err, c.want)
			}
		})
	}
}

// Each refusal must tell the user what to give.
func TestOpen_incomplete_saysWhatIsMissing(t *testing.T) {
	for _, c := range []struct {
		name, says string
		cfg        Config
	}{
		{"unknown provider", "choose auto, netmap", Config{Provider: "consul"}},
		{"netmap without a tailnet", "choose --provider headscale, tailscale or file", Config{}},
		{"headscale without a key", "headscale apikeys create", Config{Provider: Headscale, APIURL: "https://hs"}},
		{"headscale without a URL", "--api-url", Config{Provider: Headscale, APIToken: "k"}},
		{"a URL without scheme", "must look like https://", Config{Provider: Headscale, APIToken: "k", APIURL: "hs.example.com"}},
		{"a URL with a password", "no user", Config{Provider: Headscale, APIToken: "k", APIURL: "https://u:hunter22@hs"}},
		{"Tailscale without anything", "devices:core:read", Config{Provider: Tailscale}},
		{"half an OAuth client", "--client-secret", Config{ClientID: "i"}},
		{"file without a file", "--devices", Config{Provider: File}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := Open(c.cfg)
			if before := Check(c.cfg, false); fmt.Sprint(before) != fmt.Sprint(err) {
				t.Errorf("the check before says otherwise: %v", before)
			}
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want it to say %q", err, c.says)
			}
			if err != nil && strings.Contains(err.Error(), "hunter22") {
				t.Errorf("shows the password: %v", err)
			}
		})
	}
}

func TestOpen_anySource_returnsItsName(t *testing.T) {
	for _, c := range []struct {
		cfg     Config
		want    string
		watches bool
	}{
		{Config{Node: noNode{}}, Netmap, true},
		{Config{APIToken: "k", ControlURL: "https://hs"}, Headscale, false},
		{Config{APIToken: "k", ControlURL: "https://hs", Node: noNode{}}, Headscale, true},
		{Config{APIToken: "k"}, Tailscale, false},
		{Config{Devices: "d.yaml"}, File, true},
	} {
		src, name, err := Open(c.cfg)
		if err != nil || name != c.want {
			t.Errorf("got %s, %v; want %s", name, err, c.want)
		}
		if _, watches := src.(watching); watches != c.watches {
			t.Errorf("%s: watches %v, want %v", name, watches, c.watches)
		}
	}
}

// What can be known to be wrong is told before a tailnet is joined.
func TestCheck_beforeJoining_findsWhatIsWrong(t *testing.T) {
	there := filepath.Join(t.TempDir(), "there")
	if err := os.WriteFile(there, []byte("text\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	away := Secret("file:" + there + ".away")
	for _, c := range []struct {
		name, says string
		cfg        Config
	}{
		{"the netmap", "", Config{}},
		{"a file that is not there yet", "", Config{Devices: "d.yaml"}},
		{"a secret in a file", "", Config{APIToken: Secret("file:" + there)}},
		{"a secret whose file is away", "there.away: no such file", Config{APIToken: away}},
		{"the same for headscale", "provider headscale: read secret", Config{APIToken: away, ControlURL: "https://hs"}},
		{"half an OAuth client in a file that is away", "there.away", Config{ClientID: "i", ClientSecret: away}},
		{"a secret that is not used", "", Config{Provider: Netmap, APIToken: away}},
		{"a token beside an OAuth client is not used", "", Config{ClientID: "i", ClientSecret: "s", APIToken: away}},
		{"an unknown provider", "choose auto, netmap", Config{Provider: "consul"}},
	} {
		err := Check(c.cfg, true)
		if (c.says == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.says)
		}
	}
}

func TestPlainHTTP_credentialOverTheNetwork_isNamed(t *testing.T) {
	token := Secret("x")
	for _, test := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"headscale by its control URL", Config{APIToken: token, ControlURL: "http://headscale.example.com:8080/x"}, "http://headscale.example.com:8080"},
		{"another API URL", Config{APIToken: token, ControlURL: "https://headscale.example.com", APIURL: "HTTP://10.0.0.1"}, "http://10.0.0.1"},
		{"an OAuth client", Config{ClientID: token, ClientSecret: token, APIURL: "http://api.example.com"}, "http://api.example.com"},
		{"encrypted", Config{APIToken: token, ControlURL: "https://headscale.example.com"}, ""},
		{"Tailscale's own", Config{APIToken: token}, ""},
		{"no token", Config{ControlURL: "http://headscale.example.com"}, ""},
		{"a file", Config{APIToken: token, Devices: "x.yaml", ControlURL: "http://headscale.example.com"}, ""},
		{"this machine", Config{APIToken: token, ControlURL: "http://localhost:8080"}, ""},
		{"this machine's address", Config{APIToken: token, ControlURL: "http://127.3.2.1:8080"}, ""},
		{"this machine's IPv6 address", Config{APIToken: token, ControlURL: "http://[::1]:8080"}, ""},
		{"a name like it", Config{APIToken: token, ControlURL: "http://localhost.example.com"}, "http://localhost.example.com"},
	} {
		if got := PlainHTTP(test.cfg); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

// noNode is a node whose methods are not called.
type noNode struct{ Node }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// fakeNode grants to every device, unless it fails.
type fakeNode struct {
	Node
	err error
}

func (n fakeNode) AddGrants(_ context.Context, devices []topology.Device) error {
	for i := range devices {
		devices[i].Grants = []json.RawMessage{json.RawMessage("{}")}
	}
	return n.err
}

func TestWithGrants_nodeFails_listsNothing(t *testing.T) {
	src := &script{devices: fleet(2)}
	if devices, err := WithGrants(src, fakeNode{}).List(t.Context()); err != nil || len(devices) != 2 || len(devices[1].Grants) != 1 {
		t.Errorf("got %+v, %v", devices, err)
	}
	if devices, err := WithGrants(src, fakeNode{err: errors.New("boom")}).List(t.Context()); err == nil || devices != nil {
		t.Errorf("a list without its grants: %+v, %v", devices, err)
	}
}

func TestEntries_everySource_isComplete(t *testing.T) {
	for _, e := range entries() {
		if e.name == "" || e.open == nil || e.fits == nil || e.spacing <= 0 || (e.api == nil) != (e.secrets == nil) {
			t.Errorf("incomplete row: %+v", e)
		}
	}
	if got, want := oneOf(Names()), "auto, netmap, headscale, tailscale or file"; got != want {
		t.Errorf("names: %s, want %s", got, want)
	}
}
