// floor is the same sandbox by hand: the calls of caisson's plan, in their order, without a library. It answers lines,
// fields separated by tabs:
//
//	A PROGRAM COUNT          starts PROGRAM so often in sandbox A
//	B PROGRAM COUNT          in sandbox B
//	bare PROGRAM COUNT ARGS  with arguments and not isolated
//
// with "ok" and the nanoseconds of each start, from before the clone until it has been waited for.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// From linux/mount.h and sys/mount.h, which cannot both be included everywhere.
#ifndef MS_REC
#define MS_REC 16384
#endif
#ifndef MS_PRIVATE
#define MS_PRIVATE (1 << 18)
#endif
#define DETACH 2
#define RECURSIVE 0x8000 // AT_RECURSIVE

extern char **environ;

struct start {
	const char *program;
	char **args;
	uint64_t flags;
	int user;      // the child waits until its id maps have been written
	int sandboxed; // not bare
	int null[3];
	int sock[2];
	sigset_t mask;
	int pidfd;
	pid_t tid;
	const char *failed; // the call, for the parent
	int err;
};

static uid_t uid;
static gid_t gid;
static char stack[64 << 10] __attribute__((aligned(16)));

static _Noreturn void fail(struct start *s, const char *call)
{
	s->failed = call;
	s->err = errno;
	for (;;)
		syscall(SYS_exit_group, 253);
}

#define CALL(name, ...)                                      \
	({                                                   \
		long r_ = syscall(SYS_##name, __VA_ARGS__);  \
		if (r_ < 0)                                  \
			fail(s, #name);                      \
		r_;                                          \
	})

struct option {
	const char *key, *value;
};

static int fresh(struct start *s, const char *type, const struct option *o, uint64_t attr)
{
	int fs = CALL(fsopen, type, FSOPEN_CLOEXEC);
	for (; o && o->key; o++)
		CALL(fsconfig, fs, o->value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, o->key, o->value, 0);
	CALL(fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
	return CALL(fsmount, fs, FSMOUNT_CLOEXEC, attr);
}

static int tree(struct start *s, const char *path)
{
	return CALL(open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | RECURSIVE);
}

static void attach(struct start *s, int mount, const char *path)
{
	CALL(move_mount, mount, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH);
}

static void point(struct start *s, const char *path)
{
	if (syscall(SYS_mkdirat, AT_FDCWD, path, 0755) < 0 && errno != EEXIST)
		fail(s, "mkdirat");
}

static const struct node {
	const char *name, *path;
	int major, minor;
} nodes[] = {{"null", "/dev/null", 1, 3},     {"zero", "/dev/zero", 1, 5},       {"full", "/dev/full", 1, 7},
	     {"random", "/dev/random", 1, 8}, {"urandom", "/dev/urandom", 1, 9}, {"tty", "/dev/tty", 5, 0}};
enum { NODES = sizeof nodes / sizeof *nodes };

static const struct option dev_options[] = {{"mode", "755"}, {"size", "65536k"}, {}};
static const struct option shm_options[] = {{"size", "65536k"}, {}};
static const struct option pts_options[] = {{"ptmxmode", "0666"}, {"mode", "0620"}, {"gid", "5"}, {}};
static const struct option pts_user[] = {{"ptmxmode", "0666"}, {"mode", "0620"}, {}};
static const char *const links[][2] = {{"/proc/self/fd", "fd"},
				       {"/proc/self/fd/0", "stdin"},
				       {"/proc/self/fd/1", "stdout"},
				       {"/proc/self/fd/2", "stderr"},
				       {"pts/ptmx", "ptmx"}};

struct mounts {
	int root, proc, dev, shm, tmp, pts, node[NODES];
};

// early is what needs no ids: the parent writes them meanwhile.
static void early(struct start *s, struct mounts *m)
{
	struct mount_attr ro = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV};
	CALL(mount, NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
	m->root = tree(s, "/");
	CALL(mount_setattr, m->root, "", RECURSIVE | AT_EMPTY_PATH, &ro, sizeof ro);
	struct mount_attr node = {.attr_set = MOUNT_ATTR_RDONLY};
	for (int i = 0; s->user && i < NODES; i++) {
		m->node[i] = tree(s, nodes[i].path);
		CALL(mount_setattr, m->node[i], "", RECURSIVE | AT_EMPTY_PATH, &node, sizeof node);
	}
}

// sources makes what will be mounted, while paths are still those of the host.
static void sources(struct start *s, struct mounts *m)
{
	m->proc = fresh(s, "proc", NULL, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
	m->dev = fresh(s, "tmpfs", dev_options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_STRICTATIME);
	m->shm = fresh(s, "tmpfs", shm_options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
	CALL(mkdirat, m->dev, "pts", 0755);
	CALL(mkdirat, m->dev, "shm", 01777);
	for (int i = 0; i < 5; i++)
		CALL(symlinkat, links[i][0], m->dev, links[i][1]);
	m->tmp = fresh(s, "tmpfs", NULL, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
	m->pts = fresh(s, "devpts", s->user ? pts_user : pts_options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
	for (int i = 0; i < NODES; i++) {
		const struct node *n = &nodes[i];
		if (!s->user) {
			CALL(mknodat, m->dev, n->name, S_IFCHR | 0666, makedev(n->major, n->minor));
			continue;
		}
		CALL(mknodat, m->dev, n->name, S_IFREG | 0666, 0);
	}
}

static void change_root(struct start *s, int root)
{
	attach(s, root, "/");
	CALL(fchdir, root);
	CALL(pivot_root, ".", ".");
	CALL(umount2, ".", DETACH);
	CALL(chdir, "/");
}

static void targets(struct start *s, struct mounts *m)
{
	point(s, "/proc");
	attach(s, m->proc, "/proc");
	point(s, "/dev");
	attach(s, m->dev, "/dev");
	attach(s, m->shm, "/dev/shm");
	point(s, "/tmp");
	struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_NO_MAGICLINKS};
	int tmp = CALL(openat2, AT_FDCWD, "/tmp", &how, sizeof how);
	CALL(move_mount, m->tmp, "", tmp, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
	attach(s, m->pts, "/dev/pts");
	for (int i = 0; s->user && i < NODES; i++)
		attach(s, m->node[i], nodes[i].path);
}

// await_maps waits for the id maps, some times without sleeping.
static void await_maps(struct start *s)
{
	char b = 0;
	for (int i = 0; i < 100; i++) {
		if (syscall(SYS_recvfrom, s->sock[1], &b, 1, MSG_DONTWAIT | MSG_PEEK, NULL, NULL) >= 0)
			break;
		syscall(SYS_sched_yield);
	}
	if (CALL(read, s->sock[1], &b, 1) == 0)
		syscall(SYS_exit_group, 253);
}

// become_root takes the ids that the maps give.
static void become_root(struct start *s)
{
	if (uid == 0)
		CALL(setgroups, 0, NULL);
	CALL(setresgid, 0, 0, 0);
	CALL(setresuid, 0, 0, 0);
}

// keep closes all descriptors but those of the start, which are in ascending order.
static void keep(struct start *s, const int *fds, int n)
{
	int from = 0;
	for (int i = 0; i < n; i++) {
		if (fds[i] > from)
			CALL(close_range, from, fds[i] - 1, 0);
		from = fds[i] + 1;
	}
	CALL(close_range, from, ~0U, 0);
}

// inspect looks whether the program is a script: its interpreter could be /proc/self/exe, which is still the host's.
static void inspect(struct start *s)
{
	char head[2];
	struct statx about;
	CALL(statx, AT_FDCWD, s->program, AT_NO_AUTOMOUNT, STATX_TYPE, &about);
	errno = ENOEXEC;
	if (!S_ISREG(about.stx_mode))
		fail(s, "execve of what is no file");
	struct open_how how = {.flags = O_RDONLY | O_NONBLOCK | O_CLOEXEC, .resolve = RESOLVE_NO_MAGICLINKS};
	int fd = CALL(openat2, AT_FDCWD, s->program, &how, sizeof how);
	CALL(read, fd, head, 2);
	CALL(close, fd);
	errno = ENOEXEC;
	if (head[0] == '#' && head[1] == '!')
		fail(s, "execve of a script");
}

static void isolate(struct start *s)
{
	struct mounts m;
	int fds[4] = {s->null[0], s->null[1], s->null[2], s->sock[1]};
	if (s->user)
		CALL(write, s->sock[1], "", 1); // the parent is told at once
	keep(s, fds, s->user ? 4 : 3);
	early(s, &m);
	if (s->user) {
		await_maps(s);
		become_root(s);
	}
	int umask = CALL(umask, 0);
	sources(s, &m);
	change_root(s, m.root);
	targets(s, &m);
	CALL(umask, umask);
	for (int i = 0; i < 3; i++)
		CALL(dup3, s->null[i], i, 0);
	CALL(close_range, 3, ~0U, 0);
	CALL(prctl, PR_SET_NAME, "floor", 0, 0, 0);
	inspect(s);
}

static void child(struct start *s)
{
	CALL(rt_sigprocmask, SIG_SETMASK, &s->mask, NULL, 8);
	if (s->sandboxed)
		isolate(s);
	CALL(execve, s->program, s->args, environ);
}

// clone_child makes a child that runs child(s) on the stack that a names.
static long clone_child(struct clone_args *a, struct start *s)
{
#if defined(__x86_64__)
	register void (*f)(struct start *) __asm__("r12") = child;
	register struct start *arg __asm__("r13") = s;
	long r;
	__asm__ volatile("syscall\n\ttest %%rax, %%rax\n\tjnz 1f\n\t"
			 "xor %%ebp, %%ebp\n\tmov %%r13, %%rdi\n\tcall *%%r12\n\tud2\n1:"
			 : "=a"(r)
			 : "a"(SYS_clone3), "D"(a), "S"(sizeof *a), "r"(f), "r"(arg)
			 : "rcx", "r11", "memory");
	return r;
#elif defined(__aarch64__)
	register long r __asm__("x0") = (long)a;
	register long size __asm__("x1") = sizeof *a;
	register long nr __asm__("x8") = SYS_clone3;
	register void (*f)(struct start *) __asm__("x19") = child;
	register struct start *arg __asm__("x20") = s;
	__asm__ volatile("svc 0\n\tcbnz x0, 1f\n\tmov x29, xzr\n\tmov x0, x20\n\tblr x19\n\tbrk 1\n1:"
			 : "+r"(r)
			 : "r"(size), "r"(nr), "r"(f), "r"(arg)
			 : "memory");
	return r;
#else
#error "the child needs a stack of its own: amd64 and arm64 only"
#endif
}

static int orders[2]; // the main thread gives each start to the helper

static void put(pid_t pid, const char *file, const char *format, ...)
{
	char path[64], text[64];
	va_list ap;
	va_start(ap, format);
	int n = vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, n) != n)
		fprintf(stderr, "floor: %s: %m\n", path);
	close(fd);
}

// helper writes the id maps of a child while it waits and the main thread sleeps in vfork.
static void *helper(void *unused)
{
	struct start *s;
	char b;
	while (read(orders[0], &s, sizeof s) == sizeof s) {
		if (read(s->sock[0], &b, 1) != 1)
			continue;
		pid_t pid = __atomic_load_n(&s->tid, __ATOMIC_SEQ_CST);
		if (uid != 0) // who maps a group without privilege must give up setgroups(2)
			put(pid, "setgroups", "deny");
		put(pid, "gid_map", "0 %u 1", gid);
		put(pid, "uid_map", "0 %u 1", uid);
		if (write(s->sock[0], &b, 1) != 1)
			perror("floor: write");
	}
	return unused;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static int run(struct start *s)
{
	siginfo_t info = {};
	sigset_t all;
	struct clone_args a = {
		.flags = CLONE_VM | CLONE_VFORK | CLONE_CLEAR_SIGHAND | CLONE_PIDFD | CLONE_PARENT_SETTID | s->flags,
		.exit_signal = SIGCHLD,
		.stack = (uintptr_t)stack,
		.stack_size = sizeof stack,
		.pidfd = (uintptr_t)&s->pidfd,
		.parent_tid = (uintptr_t)&s->tid,
	};
	for (int i = 0; s->sandboxed && i < 3; i++)
		s->null[i] = open("/dev/null", (i ? O_WRONLY : O_RDONLY) | O_CLOEXEC);
	if (s->user) {
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s->sock) < 0 || write(orders[1], &s, sizeof s) < 0)
			die("floor: socketpair");
	}
	int dumpable = s->user ? prctl(PR_GET_DUMPABLE) : 0; // a change of user in the child may clear ours
	sigfillset(&all);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &s->mask, 8);
	long pid = clone_child(&a, s);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &s->mask, NULL, 8);
	if (s->user)
		prctl(PR_SET_DUMPABLE, dumpable);
	for (int i = 0; s->sandboxed && i < 3; i++)
		close(s->null[i]);
	for (int i = 0; s->user && i < 2; i++)
		close(s->sock[i]);
	if (pid < 0) {
		s->failed = "clone3";
		s->err = -pid;
		return -1;
	}
	int r = waitid(P_PIDFD, s->pidfd, &info, WEXITED);
	close(s->pidfd);
	return r < 0 || s->failed || info.si_code != CLD_EXITED || info.si_status != 0 ? -1 : 0;
}

static int64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void answer(FILE *out, char **words)
{
	struct start s = {.program = words[1], .sandboxed = 1};
	const uint64_t a = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;
	char *count = words[2];
	words[2] = words[1]; // argv[0]
	s.args = words + 2;
	switch (words[0][0]) {
	case 'A':
		s.flags = a;
		break;
	case 'B':
		s.flags = a | CLONE_NEWNET | CLONE_NEWUSER;
		s.user = 1;
		break;
	default:
		s.sandboxed = 0;
	}
	int n = atoi(count);
	int64_t took[n];
	for (int i = 0; i < n; i++) {
		int64_t began = now();
		if (run(&s) < 0) {
			fprintf(out, "%s: %s\n", s.failed ? s.failed : words[1], s.failed ? strerror(s.err) : "ended badly");
			return;
		}
		took[i] = now() - began;
	}
	fputs("ok", out);
	for (int i = 0; i < n; i++)
		fprintf(out, " %lld", (long long)took[i]);
	fputc('\n', out);
}

// streams moves the lines away from descriptors 0 and 1, so that children have /dev/null there and on 2.
static void streams(FILE **in, FILE **out)
{
	int from = fcntl(0, F_DUPFD_CLOEXEC, 10), to = fcntl(1, F_DUPFD_CLOEXEC, 10), null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd);
	close(null);
	*in = fdopen(from, "r");
	*out = fdopen(to, "w");
}

int main(void)
{
	char line[16 << 10], *words[64];
	pthread_t thread;
	FILE *in, *out;
	streams(&in, &out);
	uid = getuid();
	gid = getgid();
	if (pipe2(orders, O_CLOEXEC) < 0 || pthread_create(&thread, NULL, helper, NULL) != 0)
		die("floor");
	for (fputs("ok\n", out), fflush(out); fgets(line, sizeof line, in); fflush(out)) {
		int n = 0;
		for (char *w = strtok(line, "\t\n"); w && n < 63; w = strtok(NULL, "\t\n"))
			words[n++] = w;
		words[n] = NULL;
		if (n < 3 || (n > 3 && words[0][0] != 'b')) // an argument that nobody meant would cost time
			fputs("what?\n", out);
		else
			answer(out, words);
	}
	return 0;
}
