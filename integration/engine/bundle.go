package engine

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// Look is one more question for the bundle: a command that is run in every
// container whose name contains Name, or a URL that is asked in its network.
type Look struct {
	Name    string
	File    string
	Command []string
	URL     string
}

// Bundle writes one archive that explains a failure: the list of what carries
// the prefix, each container's log and settings, and the answers to all looks.
// It goes to $TAILXDS_BUNDLES, or to the directory for temporary files. What
// can't be had is replaced by the reason, so that a broken part hides nothing.
func (r *Run) Bundle(ctx context.Context, probe *Probe, prefix string, looks []Look) (string, error) {
	dir := cmp.Or(os.Getenv("TAILXDS_BUNDLES"), os.TempDir())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("making %s for the bundle: %w", dir, err)
	}
	path := filepath.Join(dir, fmt.Sprintf("%s-%s.tar.gz", prefix, time.Now().UTC().Format("150405")))
	file, err := os.Create(path)
	if err != nil {
		return "", fmt.Errorf("creating the bundle: %w", err)
	}
	zip := gzip.NewWriter(file)
	archive := tar.NewWriter(zip)
	err = r.fill(ctx, archive, probe, prefix, looks)
	return path, errors.Join(err, archive.Close(), zip.Close(), file.Close())
}

func (r *Run) fill(ctx context.Context, archive *tar.Writer, probe *Probe, prefix string, looks []Look) error {
	containers, err := r.containers(ctx, prefix)
	if err != nil {
		return err
	}
	errs := []error{add(archive, "containers.txt", strings.Join(containers, "\n")+"\n")}
	asked := questions(containers, probe, looks)
	answers := make([]string, len(asked))
	var group errgroup.Group
	group.SetLimit(4)
	for i, question := range asked {
		group.Go(func() error {
			answers[i] = combined(ctx, question.args...)
			return nil // a failure is an answer, too
		})
	}
	errs = append(errs, group.Wait())
	for i, question := range asked {
		errs = append(errs, add(archive, question.file, answers[i]))
	}
	return errors.Join(errs...)
}

// question is one file of the bundle and the docker command that fills it.
type question struct {
	file string
	args []string
}

// questions are what is asked of each container in the list.
func questions(containers []string, probe *Probe, looks []Look) []question {
	var list []question
	for _, line := range containers {
		name, _, _ := strings.Cut(line, "\t")
		list = append(list,
			question{name + "/log.txt", []string{"logs", "--timestamps", name}},
			question{name + "/inspect.json", []string{"inspect", name}},
		)
		for _, look := range looks {
			if !strings.Contains(name, look.Name) {
				continue
			}
			args := append([]string{"exec", name}, look.Command...)
			if look.URL != "" {
				args = probe.args(name, []string{"get", look.URL})
			}
			list = append(list, question{name + "/" + look.File, args})
		}
	}
	return list
}

// containers lists name, status and image of each container under the prefix.
func (r *Run) containers(ctx context.Context, prefix string) ([]string, error) {
	format := fmt.Sprintf("{{.Label %q}}{{.Label %q}}\t{{.Names}}\t{{.Status}}\t{{.Image}}", Label, projectLabel)
	output, err := Docker(ctx, "ps", "--all", "--format", format)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, line := range lines(output) {
		if label, rest, _ := strings.Cut(line, "\t"); strings.HasPrefix(label, prefix) {
			found = append(found, rest)
		}
	}
	return found, nil
}

// combined is what a docker command prints, errors too.
func combined(ctx context.Context, args ...string) string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	output, err := exec.CommandContext(ctx, "docker", args...).CombinedOutput()
	var text bytes.Buffer
	text.Write(output)
	if err != nil {
		fmt.Fprintf(&text, "\ndocker %s: %v\n", strings.Join(args, " "), err)
	}
	return text.String()
}

func add(archive *tar.Writer, name, content string) error {
	header := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), ModTime: time.Now()}
	if err := archive.WriteHeader(header); err != nil {
		return fmt.Errorf("adding %s to the bundle: %w", name, err)
	}
	if _, err := archive.Write([]byte(content)); err != nil {
		return fmt.Errorf("adding %s to the bundle: %w", name, err)
	}
	return nil
}
