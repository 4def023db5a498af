// Package guest has only tests. They run in the kernel lane's virtual machines, and check that each is what the other
// packages' tests there take it for: the kernel, cgroup v2 alone, and a security module that enforces.
package guest
