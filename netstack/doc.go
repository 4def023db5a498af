//go:build linux

// Package netstack gives each sandbox its own network: devices, addresses, routes, names (network_namespaces(7)).
package netstack
