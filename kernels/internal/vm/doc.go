// Package vm runs commands as root in a virtual machine that is thrown away afterwards.
//
// The machine is qemu with software emulation, which needs no privilege, no disk image and no /dev/kvm, and starts in two
// or three seconds. A Debian kernel boots from an initrd that holds one static Go program: the guest's init, which is
// whatever program calls [Guest] when it finds itself to be process 1. The guest sees the host's file system through 9p,
// read-only, below an overlay whose upper layer is memory. So commands, tools and testdata are where they are on the
// host, may be written to, and are as they were when the machine has gone.
//
// What the init has to say comes out of a virtio port as one JSON object a line: the output of each command as it
// appears, and how it ended. The serial console is kept for a guest that dies.
//
// Several settings here are not a matter of taste, and each says at its place what happens without it.
package vm
