// Package provider lists the devices of a tailnet, and keeps the last good list
// while the place they are listed in is slow, broken or wrong.
//
// A [Source] lists devices: whole or an error, never a part. There is one file
// a source (headscale.go, tailscale.go, file.go, and package netmap) and one row in
// the table of sources.go. The [Watcher] lists them when something may have changed.
// What a device means is decided by package topology.
package provider
