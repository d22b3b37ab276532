package k8s

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const infra = repository + "/deploy/infra"

func lintTemplates(t *testing.T, files ...string) result {
	t.Helper()
	program(t, "helm") // cfn-lint is fetched by the same script, so the same condition holds
	args := append([]string{"--format", "parseable", "--regions", "us-east-1", "us-west-2", "--"}, files...)
	return execute(t.Context(), "", repository+"/scripts/k8s/cfn-lint", args...)
}

func TestInfra_cfnLint_noFault(t *testing.T) {
	if r := lintTemplates(t, infra+"/cluster.yaml"); r.err != nil {
		t.Error(r.err)
	}
}

// The check that passes above must be one that can fail.
func TestInfra_cfnLint_refusesFaults(t *testing.T) {
	template, err := os.ReadFile(infra + "/cluster.yaml")
	if err != nil {
		t.Fatal(err)
	}
	mistakes := []struct{ what, right, wrong, says string }{
		{"a misspelt property", "DiskSize:", "DiskSise:", "DiskSise"},
		{"a reference to nothing", "!Ref NodeType", "!Ref MachineType", "MachineType"},
		{"a wrong type", "MinSize: 2", "MinSize: two", "two"},
		{"an unknown resource", "AWS::EKS::Nodegroup", "AWS::EKS::NodeGroups", "AWS::EKS::NodeGroups"},
	}
	folder := t.TempDir()
	var files []string
	for i, mistake := range mistakes {
		if !strings.Contains(string(template), mistake.right) {
			t.Fatalf("the template no longer says %q", mistake.right)
		}
		file := filepath.Join(folder, fmt.Sprintf("%d.yaml", i))
		text := strings.Replace(string(template), mistake.right, mistake.wrong, 1)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	found := lintTemplates(t, files...)
	for i, mistake := range mistakes {
		told := slices.ContainsFunc(strings.Split(found.stdout, "\n"), func(line string) bool {
			return strings.HasPrefix(line, files[i]) && strings.Contains(line, mistake.says)
		})
		if !told {
			t.Errorf("%s was not told with a word on %s:\n%s", mistake.what, mistake.says, found.stdout)
		}
	}
}

// The AWS CLI is replaced by a program that notes how it is called.
func TestInfra_clustersScript_callsAWSForBothRegions(t *testing.T) {
	for command, want := range map[string][]string{
		"up": {
			"cloudformation deploy --region us-east-1 --stack-name lbr-envoy-east",
			"cloudformation deploy --region us-west-2 --stack-name lbr-envoy-west",
			"eks update-kubeconfig --region us-east-1 --name lbr-envoy-east --alias lbr-envoy-east",
			"eks update-kubeconfig --region us-west-2 --name lbr-envoy-west --alias lbr-envoy-west",
		},
		"down": {
			"cloudformation delete-stack --region us-east-1 --stack-name lbr-envoy-east",
			"cloudformation delete-stack --region us-west-2 --stack-name lbr-envoy-west",
			"cloudformation wait stack-delete-complete --region us-east-1 --stack-name lbr-envoy-east",
			"cloudformation wait stack-delete-complete --region us-west-2 --stack-name lbr-envoy-west",
		},
	} {
		t.Run(command, func(t *testing.T) {
			calls, err := runClusters(t, command, "exit 0")
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(calls)
			for i, call := range calls {
				calls[i], _, _ = strings.Cut(call, " --template-file")
			}
			if !slices.Equal(calls, want) {
				t.Errorf("it called aws with\n%s\nand not with\n%s", strings.Join(calls, "\n"), strings.Join(want, "\n"))
			}
		})
	}
	t.Run("one cluster fails", func(t *testing.T) {
		calls, err := runClusters(t, "up", `case "$*" in *us-east-1*) exit 1 ;; esac`)
		if err == nil {
			t.Error("it did not say so")
		}
		if !slices.ContainsFunc(calls, func(call string) bool { return strings.Contains(call, "lbr-envoy-west --alias") }) {
			t.Errorf("the other cluster was not finished: %v", calls)
		}
	})
}

// runClusters returns the calls of aws, which ends as it is told to.
func runClusters(t *testing.T, command, end string) ([]string, error) {
	t.Helper()
	folder := t.TempDir()
	noted := filepath.Join(folder, "calls")
	script := "#!/bin/sh\necho \"$*\" >>" + noted + "\n" + end + "\n"
	if err := os.WriteFile(filepath.Join(folder, "aws"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), infra+"/clusters", command)
	cmd.Env = append(os.Environ(), "PATH="+folder+":"+os.Getenv("PATH"))
	runErr := cmd.Run()
	text, err := os.ReadFile(noted)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n"), runErr
}
