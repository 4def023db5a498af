//go:build linux

// Command hello starts a shell in a sandbox and lets it print what it sees of the machine: it is process 1, on a host of
// its own name, root of its own user namespace, with nothing but a loopback interface, and the host's files read-only.
// It needs no privilege: go run ./examples/hello
package main

import (
	"fmt"
	"os"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/namespaces"
)

func main() {
	sandbox := caisson.New(
		namespaces.All&^namespaces.Time, namespaces.Hostname("hello"),
		chroot.Host{}, chroot.Proc{}, chroot.Dev{}, chroot.Tmpfs{Path: "/tmp"},
	)
	cmd := sandbox.Command("sh", "-c", script)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "hello:", err)
		os.Exit(1)
	}
}

// script needs nothing but a shell. Double quotes are missing where words are to be joined by single spaces.
const script = `
show() { echo "$@"; }
show pid $$
read name </proc/sys/kernel/hostname; show hostname $name
while read inside outside size; do show uid map: $inside inside is $outside outside, for $size; done </proc/self/uid_map
while read name rest; do case $name in *:) show interface ${name%:};; esac; done </proc/net/dev
while read from to type options rest; do show mount $to $type ${options%%,*}; done </proc/self/mounts
`
