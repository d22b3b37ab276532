package provider

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tailscale/hujson"
	"tailscale.com/tailcfg"

	"github.com/tailxds/tailxds/internal/topology"
)

// What docs/grants.md tells people to paste must be HuJSON, and its grants
// must mean something without a problem.
func TestDocs_grants_areValid(t *testing.T) {
	text, err := os.ReadFile("../../docs/grants.md")
	if err != nil {
		t.Fatal(err)
	}
	type grant struct {
		Src, Dst []string
		App      map[string][]json.RawMessage
	}
	var found int
	for _, block := range regexp.MustCompile("(?s)```jsonc\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		plain, err := hujson.Standardize([]byte(block[1]))
		if err != nil {
			t.Fatalf("%v in\n%s", err, block[1])
		}
		var policy struct {
			grant
			TagOwners map[string][]string
			Grants    []grant
		}
		if err := json.Unmarshal(plain, &policy); err != nil {
			t.Fatal(err)
		}
		for _, g := range append(policy.Grants, policy.grant) {
			for _, name := range append(g.Src, g.Dst...) {
				if _, owned := policy.TagOwners[name]; policy.Grants != nil && !owned {
					t.Errorf("%s has no owner", name)
				}
			}
			for capability, objects := range g.App {
				if capability != topology.Capability {
					t.Errorf("capability %q", capability)
				}
				found += len(objects)
				device := topology.Device{ID: "1", Online: true, Addresses: []string{"100.64.0.1"}, Grants: objects}
				got, problems := topology.Build([]topology.Device{device}, topology.Rules{DefaultService: "server", DefaultPort: 8080, Now: time.Unix(1e9, 0)})
				if len(problems) > 0 || len(got.ByDevice()["1"]) != len(objects) {
					t.Errorf("%s makes %+v with problems %v", objects, got, problems)
				}
			}
		}
	}
	if found != 8 {
		t.Errorf("%d grants are documented; this test reads them by their marks, ```jsonc", found)
	}
	for _, key := range topology.KeyNames() {
		name, ok := topology.AttributeKey("custom:tailxds_" + key)
		if !ok || name != key || !strings.Contains(string(text), "`custom:tailxds_"+key+"`") || !strings.Contains(string(text), "`tag:"+key+"-") || !strings.Contains(string(text), `"`+key+`": `) {
			t.Errorf("key %s: the page lacks it as a tag, in a grant or as an attribute, or it is read as %q", key, name)
		}
	}
}

// Every policy that people are told to use lets nodes restart while the
// coordination server is away, and is valid.
func TestDocs_policies_cacheTheNetmap(t *testing.T) {
	block := regexp.MustCompile("(?s)```jsonc?\n(.*?)```")
	for file, policies := range map[string]int{"../../docs/grants.md": 2, "../../docs/kubernetes.md": 1, "../../lab/headscale/policy.hujson": 1} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		blocks := [][]string{{"", string(text)}}
		if strings.HasSuffix(file, ".md") {
			blocks = block.FindAllStringSubmatch(string(text), -1)
		}
		for _, b := range blocks {
			plain, err := hujson.Standardize([]byte(b[1]))
			if err != nil {
				t.Fatalf("%s: %v in\n%s", file, err, b[1])
			}
			var policy struct {
				TagOwners map[string][]string
				NodeAttrs []struct{ Target, Attr []string }
			}
			if err := json.Unmarshal(plain, &policy); err != nil {
				t.Fatalf("%s: %v in\n%s", file, err, b[1])
			}
			if policy.TagOwners == nil {
				continue // a snippet
			}
			policies--
			if a := policy.NodeAttrs; len(a) != 1 || !slices.Equal(a[0].Target, []string{"*"}) || !slices.Equal(a[0].Attr, []string{string(tailcfg.NodeAttrCacheNetworkMaps)}) {
				t.Errorf("%s: nodeAttrs %+v in\n%s", file, a, b[1])
			}
		}
		if policies != 0 {
			t.Errorf("%s: %d policies fewer than thought", file, policies)
		}
	}
}
