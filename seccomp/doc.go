//go:build linux

// Package seccomp decides which system calls a command may make (seccomp(2)).
//
// A [Policy] is a value; [Policy.Compile] makes a [Program] of it.
package seccomp
