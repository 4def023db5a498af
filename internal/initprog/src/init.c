// The optional PID 1 of a sandbox. It starts one command, forwards signals to
// it, reaps orphans, and ends with the command's exit status. It runs without
// libc from a sealed memfd, so there is nothing in the sandbox it could load
// and nothing of the host that the sandbox could overwrite through /proc.
//
//   caisson-init REPORT N CANDIDATE... ARGV...
//   caisson-exec REPORT N CANDIDATE... ARGV...
//
// The second form starts nothing: it executes the command in its own place. What
// is executed from here finds this program behind /proc/self/exe, not the host's:
// a script that begins with #!/proc/self/exe gets nothing to overwrite
// (CVE-2019-5736). It reports only a failure; success closes the report.
//
// REPORT is the number of the descriptor that takes the records, N the number
// of candidate paths of the program, ARGV the command's own arguments with its
// argv[0]. The environment is passed on.
//
// System calls, for who writes a seccomp policy:
//
//   both       fcntl execve write exit_group
//   init       rt_sigprocmask fcntl getpid rt_sigaction ioctl clone setpgid
//              execve write close wait4 rt_sigtimedwait exit_group
//   sometimes  kill    to forward a signal
//              prctl   when it is not process 1 of its PID namespace
//
// ioctl (TIOCGSID, TIOCSPGRP), close, setpgid, kill, prctl and write may fail:
// then there is no foreground group, no subreaper, no report. Any other that
// fails ends init, and with it the sandbox.

#if defined(__x86_64__)
#include "amd64.h"
#elif defined(__aarch64__)
#include "arm64.h"
#else
#error "no system calls for this architecture"
#endif

enum {
	EINTR = 4,
	ENOENT = 2,
	EAGAIN = 11,
	EACCES = 13,
	ENOTDIR = 20,
	EPIPE = 32,
};

enum {
	F_SETFD = 2,
	FD_CLOEXEC = 1,
	SIG_SETMASK = 2,
	SIGPIPE = 13,
	SIGCHLD = 17,
	TIOCSPGRP = 0x5410,
	TIOCGSID = 0x5429,
	SI_KERNEL = 0x80,
	PR_SET_CHILD_SUBREAPER = 36,
	WNOHANG = 1,
	CLONE_VM = 0x100,
	CLONE_VFORK = 0x4000,
};

enum {
	EXIT_USAGE = 125,     // malformed arguments, or a system call init cannot do without
	EXIT_NOT_FOUND = 127, // the command was not executed
};

enum kind {
	EXECUTED = 1, // value: the command's pid
	FAILED = 2,   // value: errno
	ENDED = 3,    // value: raw wait status
};

// action is the kernel's struct sigaction, not libc's.
struct action {
	void *handler; // 0 is SIG_DFL, 1 is SIG_IGN
	unsigned long flags;
	void *restorer;
	unsigned long mask;
};

struct timespec {
	long seconds, nanoseconds;
};

// command is what init was given. The child of spawn works on the same memory.
struct command {
	char **candidates;
	char **argv;
	char **envp;
	int count; // of candidates
	int report;
	int self;
	int foreground;       // make the command's process group the terminal's
	int shares;           // the terminal is the caller's: stay in its process group
	unsigned long mask;   // the signal mask at our exec
	struct action child;  // the disposition of SIGCHLD at our exec
	volatile long error;  // written by the child: why there was no exec
};

static const unsigned long all_signals = ~0UL;
static const struct timespec at_once = {0, 0};

#define NORETURN __attribute__((noreturn))
#define ENTRY __attribute__((used, noreturn)) // called by assembly only

static NORETURN void quit(int code)
{
	for (;;)
		sys(NR_exit_group, code, 0, 0, 0);
}

// need ends init when a system call failed that it cannot do without.
static long need(long result)
{
	if (result < 0)
		quit(EXIT_USAGE);
	return result;
}

// number reads a decimal int: digits only, at most 2^31-1. Anything else is -1.
static int number(const char *s)
{
	long n = 0;

	if (!*s)
		return -1;
	for (; *s; s++) {
		if (*s < '0' || *s > '9')
			return -1;
		n = n * 10 + (*s - '0');
		if (n > 0x7fffffff)
			return -1;
	}
	return (int)n;
}

// parse reads the stack as the kernel leaves it: argc, argv, 0, envp, 0.
// argc may be 0: kernels before 5.18 let a caller do that.
static void parse(struct command *c, long *stack)
{
	long argc = stack[0];
	char **argv = (char **)(stack + 1);

	if (argc < 5)
		quit(EXIT_USAGE);
	c->report = number(argv[1]);
	c->count = number(argv[2]);
	if (c->report < 0 || c->count < 1 || c->count > argc - 4)
		quit(EXIT_USAGE);
	c->candidates = argv + 3;
	c->argv = argv + 3 + c->count;
	c->envp = argv + argc + 1;
}

// report writes one record. A pipe takes 8 bytes whole or not at all. A reader
// that is gone is no reason to end the command: the SIGPIPE that comes with
// EPIPE is taken off the queue here, or supervise would forward it.
static void report(const struct command *c, int kind, int value)
{
	static const unsigned long pipe_signal = 1UL << (SIGPIPE - 1);
	int record[2] = {kind, value};
	long n;

	do
		n = sys(NR_write, c->report, (long)record, sizeof record, 0);
	while (n == -EINTR);
	if (n == -EPIPE)
		sys(NR_rt_sigtimedwait, (long)&pipe_signal, 0, (long)&at_once, 8);
}

// execute tries the candidates as execvpe(3) does, without its last resort, the
// shell: a file that is not there, or not for us, does not hide a later one, but
// EACCES is what the caller learns if no other can be executed.
static long execute(const struct command *c)
{
	long error = 0, denied = 0;

	for (int i = 0; i < c->count; i++) {
		error = -sys(NR_execve, (long)c->candidates[i], (long)c->argv, (long)c->envp, 0);
		if (error == EACCES)
			denied = error;
		else if (error != ENOENT && error != ENOTDIR)
			return error;
	}
	return denied ? denied : error;
}

// child runs between clone and execve. All signals are still blocked, so SIGTTOU
// cannot stop us when we take the terminal from a group that is not ours. The
// kernel copied the dispositions, so setting SIGCHLD does not touch the parent's.
static ENTRY void child(struct command *c)
{
	if (!c->shares)
		sys(NR_setpgid, 0, 0, 0, 0);
	if (c->foreground) {
		int group = (int)sys(NR_getpid, 0, 0, 0, 0);
		sys(NR_ioctl, 0, TIOCSPGRP, (long)&group, 0);
	}
	long error = -sys(NR_rt_sigaction, SIGCHLD, (long)&c->child, 0, 8);
	if (!error)
		error = -sys(NR_rt_sigprocmask, SIG_SETMASK, (long)&c->mask, 0, 8);
	if (!error)
		error = execute(c);
	c->error = error;
	quit(EXIT_NOT_FOUND);
}

// spawn starts the command and returns its pid, or the negative errno that kept
// it from being executed.
//
// CLONE_VM|CLONE_VFORK: the child borrows our memory and we sleep until it has
// executed or ended. So its errno is in c->error when we wake, without a pipe or
// a shared page, and no page table is copied. The child must not return into our
// frame, so it has a stack of its own; and no signal handler can run in the
// borrowed memory, because init has none. A command that a signal ends after the
// mask is restored and before execve counts as executed: it has a wait status.
static long spawn(struct command *c)
{
	char stack[2048] __attribute__((aligned(16)));
	long pid;

	c->error = 0;
	pid = start_child(CLONE_VM | CLONE_VFORK | SIGCHLD, stack + sizeof stack, c);
	return c->error ? -c->error : pid;
}

// supervise forwards and reaps until the command has ended, and returns its raw
// wait status. Each round reaps at most one process and takes at most one signal,
// so a command that makes orphans without end cannot keep signals from passing.
// It sleeps only when there is nothing to reap; a process that ends after wait4
// looked leaves SIGCHLD pending, which ends the sleep.
//
// Blocked signals stay pending whatever their disposition, also for process 1,
// for which the kernel otherwise drops what would be fatal. No stop signal of the
// terminal stops init: it is blocked, and goes to the command like any other.
// In a process group that the command shares, what the terminal sends reaches both
// without us.
static int supervise(const struct command *c, int pid)
{
	int info[32]; // siginfo_t: 128 bytes, the code is the third int

	for (;;) {
		int status;
		long reaped = need(sys(NR_wait4, -1, (long)&status, WNOHANG, 0));

		if (reaped == pid)
			return status;
		const struct timespec *patience = reaped ? &at_once : 0;
		long sig = sys(NR_rt_sigtimedwait, (long)&all_signals, (long)info, (long)patience, 8);
		if (sig == -EAGAIN || sig == -EINTR)
			continue;
		if (need(sig) != SIGCHLD && !(c->shares && info[2] == SI_KERNEL))
			sys(NR_kill, pid, sig, 0, 0);
	}
}

// adopt makes orphans ours where we are not process 1 of the PID namespace.
static void adopt(const struct command *c)
{
	if (c->self != 1)
		sys(NR_prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0);
}

// look_at_terminal finds out whose the controlling terminal on standard input is.
// Where we lead its session, the foreground group is ours to give. A terminal of
// the caller's session keeps the group that the caller's shell chose: a group of
// its own would be in the background there, and stop when it reads.
static void look_at_terminal(struct command *c)
{
	int session = 0;

	if (sys(NR_ioctl, 0, TIOCGSID, (long)&session, 0) < 0)
		return;
	c->foreground = session == c->self;
	c->shares = !c->foreground;
}

// let_go closes our copies of the standard descriptors, so that who reads the
// command's output sees its end when the command closes it, as without an init.
static void let_go(const struct command *c)
{
	for (int fd = 0; fd <= 2; fd++)
		if (fd != c->report)
			sys(NR_close, fd, 0, 0, 0);
}

// prepare blocks the signals first, so that none gets lost after this point. A
// SIGCHLD that came ignored must not stay so: the kernel would reap our children
// itself, and the command's status would be gone.
static void prepare(struct command *c)
{
	static const struct action plain = {0, 0, 0, 0};

	need(sys(NR_rt_sigprocmask, SIG_SETMASK, (long)&all_signals, (long)&c->mask, 8));
	need(sys(NR_fcntl, c->report, F_SETFD, FD_CLOEXEC, 0));
	need(sys(NR_rt_sigaction, SIGCHLD, (long)&plain, (long)&c->child, 8));
	c->self = (int)sys(NR_getpid, 0, 0, 0, 0);
	look_at_terminal(c);
	adopt(c);
}

// is_exec tells the two names apart: caisson-init, caisson-exec.
static int is_exec(const long *stack)
{
	const char *name = *(char **)(stack + 1);

	for (int i = 0; i < 8; i++)
		if (!name[i])
			return 0;
	return name[8] == 'e';
}

// replace executes the command in our own place.
static NORETURN void replace(const struct command *c)
{
	need(sys(NR_fcntl, c->report, F_SETFD, FD_CLOEXEC, 0));
	report(c, FAILED, (int)execute(c));
	quit(EXIT_NOT_FOUND);
}

// start is called by the entry point, with the stack as the kernel left it.
static ENTRY void start(long *stack)
{
	struct command c;

	c.foreground = c.shares = 0;
	parse(&c, stack);
	if (is_exec(stack))
		replace(&c);
	prepare(&c);

	long pid = spawn(&c);
	if (pid < 0) {
		report(&c, FAILED, (int)-pid);
		quit(EXIT_NOT_FOUND);
	}
	report(&c, EXECUTED, (int)pid);
	let_go(&c);

	int status = supervise(&c, (int)pid);
	report(&c, ENDED, status);
	int sig = status & 0x7f;
	quit(sig ? 128 + sig : status >> 8 & 0xff);
}
