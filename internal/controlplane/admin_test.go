package controlplane

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tailxds/tailxds/internal/dashboard"
)

func TestAdminAuthorizer_loopback_operates(t *testing.T) {
	for from, want := range map[string]dashboard.Role{
		"127.0.0.1:5": dashboard.RoleOperate, "[::1]:5": dashboard.RoleOperate, "[::ffff:127.0.0.1]:5": dashboard.RoleOperate,
		"172.17.0.1:5": dashboard.RoleView, "100.64.0.9:5": dashboard.RoleView, "nonsense": dashboard.RoleView,
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = from
		if v, err := adminAuthorizer().Identify(r); err != nil || v.Role != want || v.Name == "" {
			t.Errorf("from %s: %+v, want %q", from, v, want)
		}
	}
}

func TestLocalOperator_anyName_isShortAndPrintable(t *testing.T) {
	if by := localOperator(strings.Repeat("é", 300) + "\x1b"); len([]rune(by)) != maxUser+len(" at the control plane") {
		t.Errorf("an operator's name is %q", by)
	}
	if by := localOperator(" "); by != "the operator at the control plane" {
		t.Errorf("no name is %q", by)
	}
}
