//go:build linux

// Package seccomp decides which system calls a command may make (seccomp(2)).
//
// A [Policy] says what is answered to which call. It is a value; it is compiled to a [Program], in pure Go, and a [Filter] puts the
// program in force: as a part of a sandbox, or on the calling process.
//
//	seccomp.DockerDefault("CAP_SYS_CHROOT")     // Docker's default profile, for these capabilities
//	seccomp.New(seccomp.Untrusted())            // for code that nobody trusts
//	seccomp.New(seccomp.Policy{                 // one's own
//		Default: seccomp.Allow,
//		Rules: []seccomp.Rule{
//			{Names: []string{"@mount", "@keyring"}, Action: seccomp.Errno(syscall.EPERM)},
//			{Names: []string{"ioctl"}, Action: seccomp.Errno(syscall.EPERM), When: seccomp.Arg(1).In(unix.TIOCSTI)},
//		},
//	})
//
// # What is easily got wrong, and is right here
//
// A 64-bit kernel has several interfaces, each with numbers of its own. A program covers the architecture and those that its kernel
// serves beside it ([Arch.Family]); calls by any other end the process, or get what the policy says.
//
// Filters see 64 bits of an argument of which the call may read 32, or 16 ([Width]). Conditions look at what the kernel
// looks at, by a table of the calls' arguments.
//
// New calls come with every kernel. Numbers above those that the tables know answer ENOSYS, in lists of what is allowed and of what is forbidden
// alike, unless the policy says otherwise ([Policy].Newer).
//
// On i386, s390x and ppc64le some calls can also be made through socketcall(2) and ipc(2), which hide the arguments in memory: a rule for the
// call holds there, too.
//
// No filter sees what pointers point at: paths, addresses, the flags of clone3(2), the operations of io_uring. What is read there
// can change before the kernel reads it. A supervisor (package notify) has the same limit.
//
// Newer kernels let two calls of x86-64 pass without asking the filter: uprobe and uretprobe, which they put into programs themselves.
//
// # Profiles
//
// [ParseProfile] reads Docker's and OCI's profiles; [Profile.Policy] makes of one what Docker and runc make of it, with libseccomp's
// meaning, its weaknesses among them: 64 bits of every argument are compared, and a rule without conditions wins wherever it stands. Rules
// whose conditions overlap and that answer differently are refused: what libseccomp does with them depends on how its tree grows.
//
// # Looking at programs
//
// [Program.Verdict] runs a program without the kernel, [Program.Explain] says which rule answers a call, [Program.String] disassembles,
// and [Compare] finds what has changed between two.
//
// # Needs
//
// Linux 4.14; the parts that need more say so. A filter needs no privilege, since it sets no_new_privs; with
// AllowNewPrivileges it needs CAP_SYS_ADMIN. Tables are those of Linux 7.0, for x86_64, i386, x32, arm64, arm, riscv64, s390x, ppc64le, loong64, and mips64le.
//
// # Errors
//
// [*NameError], [*RuleError], [*ConditionError], [*ContradictionError], [*SizeError], [*FieldError] and [*LaunchError] say what is wrong with
// a policy, a profile, or its use; they are EINVAL or E2BIG for errors.Is. What the kernel answers is an [*Error]; what it lacks
// is errors.ErrUnsupported.
package seccomp
