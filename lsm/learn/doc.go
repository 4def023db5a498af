//go:build linux

// Package learn finds the smallest Landlock rules that let a program run, from what it was seen to do.
//
// A [Recorder] is told of each access by whoever watches the program; what was noted is a [Profile]: a value that can be merged with those of other runs
// ([Merge]), made wider on purpose ([Profile.Fold]), turned into rules ([Profile.Rules]), and printed as Go ([Profile.Go]) and as a list ([Profile.String]).
//
//	var rec learn.Recorder
//	... // watch the program: examples/learn does, by a supervisor of system calls
//	sandbox = sandbox.With(rec.Profile().Rules())
//
// This package watches nothing itself, because a primitive does not know the others: a supervisor of package seccomp/notify is the source that works for ordinary users too,
// asks the kernel for nothing more and misses no system call (but those of io_uring). What Landlock writes to the audit log is no source: the program would end at the first denial.
//
// # What it is worth
//
// A profile knows what has happened, not what can happen: files of an error path that was not taken, or of another version of a library, are missing in it. Let the
// program do all that it does, several times, and merge. While it learns, the program may do whatever the rest of the sandbox lets it do: do not learn from a
// program that is not trusted.
//
// Rules are of files that exist. What a program makes is allowed by its directory, with all that is below it: Landlock has no rule for a file that is not there yet.
// What belongs to one process under /proc is noted as /proc, and a terminal as /dev/pts: the next run has others.
//
// landlock(7), Linux 5.13
package learn
