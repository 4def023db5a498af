// Package nofile knows the limit of open descriptors with which the program was started. The os package raises the
// soft limit to the hard one when it is initialised; os/exec puts the original back in its children, but keeps it to
// itself.
//
// The variable below is initialised before package os: packages whose imports are ready are initialised in the order of
// their import paths (The Go Programming Language Specification, Package initialization), this one needs syscall only,
// and "github.com/..." sorts before "os". A test starts a program under a lowered limit and would show it if the order
// changed.
package nofile

import "syscall"

var original = read()

func read() (lim syscall.Rlimit) {
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim) != nil {
		return syscall.Rlimit{}
	}
	return lim
}

// Original gives the limit that a child should have, and whether it differs from the one it would inherit. A limit that
// the program has set itself is kept, as os/exec does.
func Original() (lim syscall.Rlimit, changed bool) {
	now := read()
	raised := now.Cur == now.Max && now.Max == original.Max && original.Cur < original.Max
	if !raised {
		return now, false
	}
	return original, true
}
