package topology

import (
	"strings"
	"testing"
)

func TestBuild_unreachableDevice_isAProblemAndNoEndpoint(t *testing.T) {
	locked, other := device(1, "tag:weight-1"), device(2, "tag:laptop")
	locked.Unreachable, other.Unreachable = "tailnet lock refuses its key", "it blocks incoming connections"
	first, _ := Build([]Device{device(1, "tag:weight-1"), device(3, "tag:weight-1")}, rules())
	if want := "server p0 / =2: 100.64.0.1:8080*1 100.64.0.3:8080*1\n"; lines(first) != want {
		t.Fatalf("got %s", lines(first))
	}
	got, problems := Build([]Device{locked, other, device(3, "tag:weight-1")}, rules())
	if want := "server p0 / =1: 100.64.0.3:8080*1\n"; lines(got) != want {
		t.Errorf("got %s, want %s", lines(got), want)
	}
	// One that is no endpoint concerns nobody.
	if len(problems) != 1 || problems[0].Device != "1" || problems[0].Reason != "passed over: no other device can connect to it: tailnet lock refuses its key" {
		t.Errorf("problems: %+v", problems)
	}
	if x := Explain(locked, rules()); len(x.Services) > 0 || !strings.Contains(x.Missing, "no other device can connect to it: tailnet lock refuses its key") {
		t.Errorf("explained: %+v", x)
	}
}
