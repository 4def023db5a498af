//go:build linux

package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/overlay/store"
)

// bar shows on a terminal how far a layer is.
type bar struct {
	name     string
	terminal bool
}

func newBar() *bar {
	_, err := unix.IoctlGetTermios(2, unix.TCGETS)
	return &bar{terminal: err == nil}
}

func (b *bar) progress(p store.Progress) {
	const width = 40
	if !b.terminal || p.Size <= 0 {
		return
	}
	done := int(min(p.Read, p.Size) * width / p.Size)
	fmt.Fprintf(os.Stderr, "\r   %-10s [%s%s] %s\033[K", b.name, strings.Repeat("#", done), strings.Repeat(".", width-done), mib(p.Read))
}

func (b *bar) clear() {
	if b.terminal {
		fmt.Fprint(os.Stderr, "\r\033[K")
	}
}
