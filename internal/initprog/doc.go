//go:build linux

// Package initprog holds the optional process 1 of a sandbox: a static program
// below 2 KiB that starts one command, reaps orphans, forwards signals, and ends
// as the command ended.
//
// A PID namespace needs a process 1 that waits for processes which are not its
// own children, and the kernel drops signals that process 1 has no handler for
// (pid_namespaces(7), signal(7)). Most commands are not written for that. The
// program here is. It is neither a copy of the host's memory nor of the host's
// binary: what the sandbox can reach through /proc/1/exe is a sealed copy of
// these bytes and nothing else (CVE-2019-5736).
//
// [Open] gives the program as a sealed memfd, to be executed by
// execveat(fd, "", argv, envp, AT_EMPTY_PATH); [Args] makes its argv. It writes
// records to the report descriptor, and [ReadRecord] reads them:
//
//	Executed, Ended   the command ran; init exits as the command did, or with
//	                  128 plus the number of the signal that ended it
//	Failed            no candidate could be executed; init exits with 127
//	(none)            malformed arguments, or a system call failed that init
//	                  cannot do without; init exits with 125
//
// The program does the following, in this order:
//
//   - it blocks all signals, makes the report descriptor close-on-exec, and, when
//     it is not process 1, makes itself a child subreaper (prctl(2));
//   - it starts the command in a process group of its own, with the signal mask
//     and dispositions that it was given itself. When init leads the session whose
//     controlling terminal is standard input, that group becomes the terminal's
//     foreground group (tcsetpgrp(3)). When the terminal is that of the caller's
//     session, the command stays in init's group, where it may read from it;
//   - it executes the first candidate that can be, as execvpe(3) does: ENOENT,
//     ENOTDIR and EACCES go on to the next. There is no fallback to a shell;
//   - it closes its own descriptors 0 to 2, so that a reader of the command's
//     output sees its end when the command closes it;
//   - it reaps, and forwards every signal but SIGCHLD to the command's process
//     (not to its group: the terminal signals the group itself), until the command
//     ends. The kernel kills what is left when process 1 exits; a mere subreaper that
//     exits, or is killed, leaves its descendants running.
//
// A signal sent before the Executed record may come before init has blocked
// signals, and is then lost: send after it.
//
// What is believed of the records: a first record of kind Failed comes from init,
// for no command ran. After Executed, a command with the same user id as init, or
// with CAP_SYS_PTRACE, can write to init's descriptors and memory. So Ended is the
// sandbox's word about itself, as an exit status always is.
//
// The program needs no privilege. Sources are in src/; build.sh builds the
// binaries for amd64 and arm64 reproducibly. It needs a kernel of version 3.19 to
// be executed by descriptor (execveat(2)).
package initprog
