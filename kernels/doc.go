// Package kernels runs the module's tests on other kernels than the machine's: the kernel lane. It has only a test, and is
// part of go test ./... where the kernels are there.
//
//	kernels/prepare.sh                                 once: fetches qemu and the kernels, on Debian 12
//	go test -count=1 ./kernels                         every package on every kernel
//	go test -count=1 ./kernels -run TestKernel/6.12
//
// Each machine is a qemu with software emulation that boots in two or three seconds, and then runs the test binaries of all
// packages as root, with cgroup v2 alone:
//
//	6.1-apparmor    Debian 12's kernel; AppArmor and Landlock, the older fallbacks
//	6.12-apparmor   a newer one
//	6.1-selinux     SELinux enforces a small policy that has container_t, instead of AppArmor
//	6.1-zfs         Debian 12's kernel with zfs: what overlay/driver does with it
//	6.12-systemd    systemd is process 1, as on most hosts: what cgroups asks it for
//	arm64           Debian 12's kernel and a small user land for arm64
//
// Tests find VMRUN=1 in their environment, and CAISSON_SLOW=1, which asks for short loops: plain code is up to 5 times
// slower there, a SHA-256 40 times, and the start of a program takes 35 ms. One package by hand, with any flags of go test,
// is what [github.com/caisson-dev/caisson/kernels/vmrun] is for.
//
// The environment decides further:
//
//	CAISSON_KERNELS_DIR   where prepare.sh puts the kernels and the tests look for them
//	CAISSON_KERNELS       "required" turns the skip for missing kernels into a failure, for CI
//	CAISSON_SKIPS         a directory (absolute) for one record of go test -json per machine, for kernels/skips
//
// -count=1 is needed because the tests' results are cached by what the module's files are, not by which kernels there are.
package kernels
