//go:build linux

// Package pty handles pseudoterminals (pty(7)) by their descriptors.
//
// A pseudoterminal has two ends. The master is a file that opening ptmx makes; whoever holds it types and sees the screen. The
// other end, the peer, is a character device in the same devpts instance and is a terminal for whoever opens it. The peer
// is opened through the master (TIOCGPTPEER, Linux 4.13) and never by its name: in a sandbox a name may lead to something else.
//
// What comes out of a sandbox is looked at before it is used: [Devpts] and [Check] ask the kernel what a descriptor is, and
// [Same] whether a file is the peer of just this master (CVE-2025-52565).
//
// All functions leave a file in the blocking mode in which it is: deadlines and Close go on working.
package pty
