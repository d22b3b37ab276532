package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// cli runs one headscale command and returns what it printed.
type cli func(ctx context.Context, args ...string) ([]byte, error)

// A labKey is one file that mintKeys writes.
type labKey struct {
	path string
	list []string // the command that lists the keys of its kind
	make []string // the command that makes one
}

// labKeys are all keys of the lab. A tagged key fixes the tags of the nodes that
// join with it. They live long, so that a lab that was down for a month comes up.
func labKeys(servers, controlPlane string) []labKey {
	preauth := func(path string, tags ...string) labKey {
		return labKey{
			path: path,
			list: []string{"preauthkeys", "list"},
			make: []string{"preauthkeys", "create", "--reusable", "--expiration", "8760h", "--tags", strings.Join(tags, ",")},
		}
	}
	return []labKey{
		preauth(filepath.Join(servers, "west"), "tag:region-west", "tag:weight-1"),
		preauth(filepath.Join(servers, "east"), "tag:region-east", "tag:weight-2"),
		preauth(filepath.Join(servers, "laptop"), "tag:laptop", "tag:region-west"),
		preauth(filepath.Join(controlPlane, "authkey"), "tag:control-plane"),
		{
			path: filepath.Join(controlPlane, "api-token"),
			list: []string{"apikeys", "list"},
			make: []string{"apikeys", "create", "--expiration", "8760h"},
		},
	}
}

func mintKeys(ctx context.Context, headscale cli, out io.Writer) error {
	for _, k := range labKeys(keysDir, controlKeysDir) {
		made, err := mint(ctx, headscale, k)
		if err != nil {
			return fmt.Errorf("minting %s: %w", k.path, err)
		}
		if made {
			fmt.Fprintln(out, "minted", k.path)
		}
	}
	return nil
}

// mint makes the key, unless it is there and headscale knows it. The volumes
// may be of different age: a key of an earlier database is worth nothing.
func mint(ctx context.Context, headscale cli, k labKey) (made bool, err error) {
	if old, err := os.ReadFile(k.path); err == nil {
		listed, err := headscale(ctx, k.list...)
		if err != nil {
			return false, err
		}
		if prefix := publicPart(string(old)); prefix != "" && bytes.Contains(listed, []byte(prefix)) {
			return false, nil
		}
	}
	answer, err := headscale(ctx, k.make...)
	if err != nil {
		return false, err
	}
	key, err := keyIn(answer)
	if err != nil {
		return false, err
	}
	// Every container reads only the volume that holds its own kind of key, as
	// root without capabilities or as a user of its own.
	return true, replaceFile(k.path, []byte(key), 0o444)
}

// publicPart is what headscale shows of a key hskey-KIND-PUBLIC-SECRET.
func publicPart(key string) string {
	parts := strings.SplitN(key, "-", 4)
	if len(parts) != 4 {
		return ""
	}
	return parts[2]
}

// keyIn reads the key in headscale's JSON, which is an object with a key, or
// the key itself.
func keyIn(answer []byte) (string, error) {
	var object struct {
		Key string `json:"key"`
	}
	var text string
	if err := json.Unmarshal(answer, &object); err == nil && object.Key != "" {
		return object.Key, nil
	}
	if err := json.Unmarshal(answer, &text); err == nil && text != "" {
		return text, nil
	}
	return "", errors.New("headscale's answer holds no key; is its version the one in compose.yaml?")
}

func headscaleCLI(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, headscaleBinary, append(args, "--output", "json")...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("headscale %s: %w: %s", args[0], err, bytes.TrimSpace(append(stderr.Bytes(), stdout.Bytes()...)))
	}
	return stdout.Bytes(), nil
}
