package cli

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/tailxds/tailxds/internal/version"
)

// documentsCommand writes what a package has beside the program.
func documentsCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "documents DIR",
		Short:  "Write manual pages and shell completions, for packages",
		Hidden: true,
		Args:   argument{what: "a directory", max: maxPath}.Check,
		RunE: func(cmd *cobra.Command, args []string) error {
			return writeDocuments(cmd.Root(), args[0])
		},
	}
}

// writeDocuments writes DIR/man and DIR/completions. With SOURCE_DATE_EPOCH set,
// the same program writes the same.
func writeDocuments(root *cobra.Command, dir string) error {
	man, completions := filepath.Join(dir, "man"), filepath.Join(dir, "completions")
	for _, d := range []string{man, completions} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return fmt.Errorf("make a directory for documents: %w", err)
		}
	}
	header := &doc.GenManHeader{Section: "1", Source: "tailxds " + version.Current().Version, Manual: "tailxds"}
	if err := doc.GenManTree(root, header, man); err != nil {
		return fmt.Errorf("write manual pages: %w", err)
	}
	for name, write := range map[string]func(string) error{
		"tailxds.bash": func(path string) error { return root.GenBashCompletionFileV2(path, true) },
		"_tailxds":     root.GenZshCompletionFile,
		"tailxds.fish": func(path string) error { return root.GenFishCompletionFile(path, true) },
	} {
		if err := write(filepath.Join(completions, name)); err != nil {
			return fmt.Errorf("write the completion %s: %w", name, err)
		}
	}
	return nil
}
