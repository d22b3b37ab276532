package provider

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
)

// Secret is a token or password: the text itself, or "file:PATH" to read it
// from a file each time it is used, so that a rotated file needs no restart.
// However it is printed, logged or marshalled, it never shows its text.
type Secret string

const redacted = "[redacted]"

// Value is the secret's text; empty if none was given.
func (s Secret) Value() (string, error) {
	path, isFile := strings.CutPrefix(string(s), "file:")
	if !isFile {
		return strings.TrimSpace(string(s)), nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	value := strings.TrimSpace(string(text))
	if value == "" {
		return "", fmt.Errorf("read secret: %s is empty", path)
	}
	return value, nil
}

// Given reports whether a secret was given at all.
func (s Secret) Given() bool { return strings.TrimSpace(string(s)) != "" }

// String hides the secret.
func (s Secret) String() string { return redacted }

// Format hides the secret from every verb of package fmt, wrong ones too.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue hides the secret from package slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText hides the secret from JSON, YAML and the like.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// redact removes secrets from text of other programs, such as a server's message
// about the token it was sent.
func redact(text string, secrets ...string) string {
	for _, s := range secrets {
		// A shorter one would be found in ordinary words, and protects nothing.
		if len(s) >= 6 {
			text = strings.ReplaceAll(text, s, redacted)
		}
	}
	return text
}
