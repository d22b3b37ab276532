// Package netmap lists the devices of a tailnet as the control plane's own node
// sees them: the peers that the coordination server shows it, whether they can be
// reached yet, and the grants that the tailnet's policy gives them. It needs no
// credential but the node's.
//
// What depends on a version of Tailscale stands in tailscale.go.
package netmap
