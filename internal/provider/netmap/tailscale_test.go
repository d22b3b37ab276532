package netmap

import (
	"os"
	"strings"
	"testing"
)

func TestPinnedVersion_ofGoMod_isTheOneThatWasRead(t *testing.T) {
	text, err := os.ReadFile("../../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "\ttailscale.com "+pinnedVersion+"\n") {
		t.Errorf("go.mod has another version of tailscale.com than %s: read what tailscale.go depends on in its sources, then change pinnedVersion", pinnedVersion)
	}
}
