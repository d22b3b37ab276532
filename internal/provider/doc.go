// Package provider knows where the devices of a tailnet are listed, and keeps
// the last good list while that place is slow, broken or wrong.
//
// A [Source] lists devices: whole or an error, never a part. There is one file
// a source (netmap.go, headscale.go, tailscale.go, file.go) and one row in
// [Open]. The [Watcher] asks the source when something may have changed, and
// decides whether an answer is believed. What a device means is not decided
// here: see package topology.
package provider
