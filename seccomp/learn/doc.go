//go:build linux

// Package learn finds the smallest policy that lets a program run, by running it.
//
// [Calls] is the part of a sandbox under which every system call is noted in a [Recorder], and then made. What was noted is a [Profile]: a value that can be
// merged with those of other runs ([Merge]), and turned into a policy ([Profile.Policy]), into a profile for Docker and other OCI
// runtimes ([Profile.OCI]), and into Go source ([Profile.Go]).
//
//	var rec learn.Recorder
//	err := caisson.New(learn.Calls{Into: &rec}).Command("ls", "/").Run()
//	policy := rec.Profile().Policy(seccomp.KillProcess)
//
// # What it is worth
//
// A profile knows what has happened, not what can happen: an error path that was not taken, a signal that did not come, another version of the C
// library are missing in it. Let the program do all that it does, several times, and merge. While it learns, the program may do whatever the rest of the sandbox
// lets it do: do not learn from a program that is not trusted.
//
// What a command needs in any case is always in a policy: execve and exit_group, the returns from signals, and a few that every program makes and that do no harm, as close and munmap. [Profile.WithInit] adds what an init process
// (caisson.Init) needs, [Profile.WithRuntime] what runc and crun need to start it.
//
// # Source
//
// Calls are noted by user notification (package notify), which costs some microseconds a call and misses nothing. It has one effect on the program: a signal that
// comes in the moment before the supervisor has received a call interrupts it. Where the signal's handler was not installed with SA_RESTART, the
// call fails with EINTR, also one that does not otherwise, as fork: a program that does not bear it has to be run again.
//
// A program that has a supervisor of its own cannot be run under another; for
// such, [ReadAudit] reads a profile from the audit log of calls that a filter has logged (seccomp.Log). The log is lossy: the kernel limits its rate.
package learn
