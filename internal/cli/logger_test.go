package cli

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"tailscale.com/tstest/integration/testcontrol"

	"github.com/tailxds/tailxds/internal/controlplane/controlplanetest"
)

// A process that joins a tailnet writes nothing but lines of its log, whichever
// library writes them. TS_DEBUG_PRETENDPOINT makes one of Tailscale's write to
// Go's standard logger.
func TestRedirectLibraryLogs_libraries_writeToTheLog(t *testing.T) {
	s := controlplanetest.StartCoordination(t, func(*testcontrol.Server) {})
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for format, line := range map[string]*regexp.Regexp{
		"text": regexp.MustCompile(`^time=\S+ level=(DEBUG|INFO|WARN|ERROR) msg=`),
		"json": regexp.MustCompile(`^\{"time":".*","level":"(DEBUG|INFO|WARN|ERROR)","msg":".*\}$`),
	} {
		c := controlplanetest.New(t)
		cmd := exec.CommandContext(t.Context(), exe)
		cmd.Args = []string{
			"tailxds", "serve", "--control-url", s.HTTPTestServer.URL, "--admin", "127.0.0.1:0", "--state-dir", t.TempDir(),
			"--log-level", "debug", "--log-format", format,
		}
		cmd.Env = append(os.Environ(), "TS_DEBUG_PRETENDPOINT=bogus")
		cmd.Stdout, cmd.Stderr = c.Log, c.Log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		c.AwaitJoined()
		c.Await("Tailscale's line", func() bool { return strings.Contains(c.Log.String(), "ignoring invalid AddrPort") })
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		all := strings.Split(c.Log.String(), "\n")
		for _, l := range all[:len(all)-1] { // the last may be cut
			if !line.MatchString(l) {
				t.Errorf("%s: no line of the log: %q", format, l)
			}
		}
	}
}
