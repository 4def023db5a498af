// view is a sandbox with Docker's default view of the file system by hand: the calls of caisson's plan, in their order, without a library. It
// answers lines "KIND COUNT", where KIND is base (namespaces and the root alone), v2 or v1 (with the view, and the control groups of that version), with
// the nanoseconds of each start, from before the clone until it has been waited for. argv: the program, then the v1 hierarchies.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef MS_REC
#define MS_REC 16384
#endif
#ifndef MS_PRIVATE
#define MS_PRIVATE (1 << 18)
#endif
#define RECURSIVE 0x8000
#define NOFILES (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)

extern char **environ;
static const char *program, *failed;
static char **hierarchies;
static int version, null[3], err;
static sigset_t mask;
static char stack[64 << 10] __attribute__((aligned(16)));

static _Noreturn void fail(const char *call)
{
	failed = call;
	err = errno;
	for (;;)
		syscall(SYS_exit_group, 253);
}

#define CALL(name, ...)                             \
	({                                          \
		long r_ = syscall(SYS_##name, __VA_ARGS__); \
		if (r_ < 0)                         \
			fail(#name);                \
		r_;                                 \
	})

struct option {
	const char *key, *value;
};

static int fresh(const char *type, const struct option *o, uint64_t attr)
{
	int fs = CALL(fsopen, type, FSOPEN_CLOEXEC);
	for (; o && o->key; o++)
		CALL(fsconfig, fs, o->value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, o->key, o->value, 0);
	CALL(fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
	return CALL(fsmount, fs, FSMOUNT_CLOEXEC, attr);
}

static int attach(int mount, int dir, const char *name)
{
	return syscall(SYS_move_mount, mount, "", dir, name, MOVE_MOUNT_F_EMPTY_PATH);
}

static void must(int r, const char *call)
{
	if (r < 0)
		fail(call);
}

static void point(int dir, const char *name)
{
	if (syscall(SYS_mkdirat, dir, name, 0755) < 0 && errno != EEXIST)
		fail("mkdirat");
}

static const struct {
	const char *name;
	int major, minor;
} nodes[] = {{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};
static const char *const links[][2] = {{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"},
				       {"/proc/self/fd/2", "stderr"}, {"pts/ptmx", "ptmx"}};
static const struct option dev_options[] = {{"mode", "755"}, {"size", "65536k"}, {}};
static const struct option shm_options[] = {{"size", "65536k"}, {}};
static const struct option pts_options[] = {{"ptmxmode", "0666"}, {"mode", "0620"}, {"gid", "5"}, {}};
static const struct option dir_options[] = {{"mode", "755"}, {}};

// What Docker masks and makes read-only; the kind is looked up before.
static struct mask {
	int sys; // in /sys, not in /proc
	const char *name;
	int kind; // 'f', 'd' or 0
} masks[] = {{0, "acpi"}, {0, "asound"}, {0, "interrupts"}, {0, "kcore"}, {0, "keys"}, {0, "latency_stats"}, {0, "sched_debug"}, {0, "scsi"},
	     {0, "timer_list"}, {0, "timer_stats"}, {1, "devices/virtual/powercap"}, {1, "firmware"}},
  sealed[] = {{0, "bus"}, {0, "fs"}, {0, "irq"}, {0, "sys"}, {0, "sysrq-trigger"}};
#define N(a) (sizeof(a) / sizeof *(a))

static void look(struct mask *m, int n)
{
	for (int i = 0; i < n; i++) {
		char path[256];
		struct stat st;
		snprintf(path, sizeof path, "%s/%s", m[i].sys ? "/sys" : "/proc", m[i].name);
		m[i].kind = lstat(path, &st) < 0 ? 0 : S_ISDIR(st.st_mode) ? 'd' : 'f';
	}
}

struct view {
	int root, proc, dev, shm, pts, mqueue, sys, cgroup, masks, seed[2], v1[32];
};

static void sources(struct view *v)
{
	struct mount_attr ro = {.attr_set = MOUNT_ATTR_RDONLY};
	v->proc = fresh("proc", NULL, NOFILES);
	v->dev = fresh("tmpfs", dev_options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_STRICTATIME);
	v->shm = fresh("tmpfs", shm_options, NOFILES);
	CALL(mkdirat, v->dev, "pts", 0755);
	CALL(mkdirat, v->dev, "shm", 01777);
	for (int i = 0; i < N(links); i++)
		CALL(symlinkat, links[i][0], v->dev, links[i][1]);
	v->mqueue = fresh("mqueue", NULL, NOFILES);
	v->sys = fresh("sysfs", NULL, NOFILES | MOUNT_ATTR_RDONLY);
	if (version == 2) {
		v->cgroup = fresh("cgroup2", NULL, NOFILES | MOUNT_ATTR_RDONLY);
	} else {
		v->cgroup = fresh("tmpfs", dir_options, NOFILES);
		for (int i = 0; hierarchies[i]; i++) {
			const char *name = hierarchies[i];
			struct option o[] = {{name}, {}};
			if (strncmp(name, "name=", 5) == 0)
				o[0] = (struct option){"name", name += 5};
			v->v1[i] = fresh("cgroup", o, NOFILES | MOUNT_ATTR_RDONLY);
			CALL(mkdirat, v->cgroup, name, 0755);
		}
	}
	v->masks = fresh("tmpfs", dir_options, NOFILES);
	CALL(mknodat, v->masks, "file", S_IFREG | 0444, 0);
	CALL(mkdirat, v->masks, "dir", 0555);
	CALL(mount_setattr, v->masks, "", AT_EMPTY_PATH, &ro, sizeof ro);
	v->pts = fresh("devpts", pts_options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
	for (int i = 0; i < N(nodes); i++)
		CALL(mknodat, v->dev, nodes[i].name, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor));
}

static int copy(int dir, const char *name)
{
	return CALL(open_tree, dir, name, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW);
}

static void copies(struct view *v)
{
	must(attach(v->masks, AT_FDCWD, "/proc"), "move_mount");
	v->seed[0] = copy(v->masks, "file");
	v->seed[1] = copy(v->masks, "dir");
}

// cover masks what is there; the first of each kind with the seed, the others with copies of it.
static void cover(struct view *v, struct mask *m, int *used)
{
	int kind = m->kind == 'd', c = v->seed[kind];
	if (*used)
		c = CALL(open_tree, c, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
	*used = 1;
	must(attach(c, m->sys ? v->sys : v->proc, m->name), "move_mount");
}

static void targets(struct view *v)
{
	point(AT_FDCWD, "/proc");
	must(attach(v->proc, AT_FDCWD, "/proc"), "move_mount");
	point(AT_FDCWD, "/dev");
	must(attach(v->dev, AT_FDCWD, "/dev"), "move_mount");
	must(attach(v->shm, v->dev, "shm"), "move_mount");
	point(AT_FDCWD, "/sys");
	must(attach(v->sys, AT_FDCWD, "/sys"), "move_mount");
	point(v->sys, "fs");
	struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_NO_MAGICLINKS};
	int fs = CALL(openat2, v->sys, "fs", &how, sizeof how);
	point(fs, "cgroup");
	must(attach(v->cgroup, fs, "cgroup"), "move_mount");
	for (int i = 0; version == 1 && hierarchies[i]; i++) {
		const char *name = hierarchies[i];
		must(attach(v->v1[i], v->cgroup, strncmp(name, "name=", 5) ? name : name + 5), "move_mount");
	}
	must(attach(v->pts, v->dev, "pts"), "move_mount");
	point(v->dev, "mqueue");
	must(attach(v->mqueue, v->dev, "mqueue"), "move_mount");
}

static void seal(struct view *v)
{
	struct mount_attr ro = {.attr_set = MOUNT_ATTR_RDONLY};
	struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS};
	if (version == 1)
		CALL(mount_setattr, v->cgroup, "", AT_EMPTY_PATH, &ro, sizeof ro);
	int used[2] = {};
	for (int i = 0; i < N(masks); i++)
		if (masks[i].kind)
			cover(v, &masks[i], &used[masks[i].kind == 'd']);
	for (int i = 0; i < N(masks); i++) // nothing is there on this machine
		if (!masks[i].kind && (syscall(SYS_openat2, masks[i].sys ? v->sys : v->proc, masks[i].name, &how, sizeof how) >= 0 || errno != ENOENT))
			fail("openat2");
	for (int i = 0; i < N(sealed); i++) {
		if (!sealed[i].kind) {
			if (syscall(SYS_openat2, v->proc, sealed[i].name, &how, sizeof how) >= 0)
				fail("openat2");
			continue;
		}
		int c = CALL(open_tree, v->proc, sealed[i].name, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW | RECURSIVE);
		CALL(mount_setattr, c, "", AT_EMPTY_PATH | RECURSIVE, &ro, sizeof ro);
		must(attach(c, v->proc, sealed[i].name), "move_mount");
	}
}

static void hide(struct view *v)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS};
	int at = CALL(openat2, v->root, "proc", &how, sizeof how);
	CALL(move_mount, v->proc, "", at, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}

static void child(void *unused)
{
	struct view v = {};
	struct mount_attr ro = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV};
	char head[2];
	CALL(rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8);
	CALL(close_range, 0, null[0] - 1, 0);
	CALL(close_range, null[2] + 1, ~0U, 0);
	CALL(mount, NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
	int old = CALL(umask, 0);
	v.root = CALL(open_tree, AT_FDCWD, "/", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | RECURSIVE);
	CALL(mount_setattr, v.root, "", RECURSIVE | AT_EMPTY_PATH, &ro, sizeof ro);
	if (version) {
		sources(&v);
		copies(&v);
	} else {
		v.proc = fresh("tmpfs", (struct option[]){{"mode", "555"}, {}}, NOFILES | MOUNT_ATTR_RDONLY); // over the host's /proc
	}
	must(attach(v.root, AT_FDCWD, "/"), "move_mount");
	CALL(fchdir, v.root);
	CALL(pivot_root, ".", ".");
	CALL(umount2, ".", 2);
	CALL(chdir, "/");
	if (version)
		targets(&v);
	CALL(umask, old);
	if (version)
		seal(&v);
	else
		hide(&v);
	for (int i = 0; i < 3; i++)
		CALL(dup3, null[i], i, 0);
	CALL(close_range, 3, ~0U, 0);
	CALL(prctl, PR_SET_NAME, "view", 0, 0, 0);
	struct statx about; // a script could name /proc/self/exe, a device is not to be opened
	CALL(statx, AT_FDCWD, program, AT_NO_AUTOMOUNT, STATX_TYPE, &about);
	if (!S_ISREG(about.stx_mode))
		fail("execve of what is no file");
	struct open_how how = {.flags = O_RDONLY | O_NONBLOCK | O_CLOEXEC, .resolve = RESOLVE_NO_MAGICLINKS};
	int fd = CALL(openat2, AT_FDCWD, program, &how, sizeof how);
	CALL(read, fd, head, 2);
	CALL(close, fd);
	char *args[] = {(char *)program, NULL};
	CALL(execve, program, args, environ);
}

static long clone_child(struct clone_args *a)
{
#if defined(__x86_64__)
	register void (*f)(void *) __asm__("r12") = child;
	long r;
	__asm__ volatile("syscall\n\ttest %%rax, %%rax\n\tjnz 1f\n\txor %%ebp, %%ebp\n\tcall *%%r12\n\tud2\n1:"
			 : "=a"(r) : "a"(SYS_clone3), "D"(a), "S"(sizeof *a), "r"(f) : "rcx", "r11", "memory");
	return r;
#elif defined(__aarch64__)
	register long r __asm__("x0") = (long)a;
	register long size __asm__("x1") = sizeof *a;
	register long nr __asm__("x8") = SYS_clone3;
	register void (*f)(void *) __asm__("x19") = child;
	__asm__ volatile("svc 0\n\tcbnz x0, 1f\n\tmov x29, xzr\n\tblr x19\n\tbrk 1\n1:" : "+r"(r) : "r"(size), "r"(nr), "r"(f) : "memory");
	return r;
#else
#error "the child needs a stack of its own: amd64 and arm64 only"
#endif
}

static int run(void)
{
	siginfo_t info = {};
	sigset_t all;
	int pidfd = -1;
	pid_t tid;
	struct clone_args a = {
		.flags = CLONE_VM | CLONE_VFORK | CLONE_CLEAR_SIGHAND | CLONE_PIDFD | CLONE_PARENT_SETTID | CLONE_NEWNS | CLONE_NEWPID |
			 CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP | CLONE_NEWNET,
		.exit_signal = SIGCHLD,
		.stack = (uintptr_t)stack,
		.stack_size = sizeof stack,
		.pidfd = (uintptr_t)&pidfd,
		.parent_tid = (uintptr_t)&tid,
	};
	failed = NULL;
	for (int i = 0; i < 3; i++)
		null[i] = open("/dev/null", (i ? O_WRONLY : O_RDONLY) | O_CLOEXEC);
	sigfillset(&all);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &mask, 8);
	long pid = clone_child(&a);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8);
	for (int i = 0; i < 3; i++)
		close(null[i]);
	if (pid < 0) {
		failed = "clone3";
		err = -pid;
		return -1;
	}
	int r = waitid(P_PIDFD, pidfd, &info, WEXITED);
	close(pidfd);
	return r < 0 || failed || info.si_code != CLD_EXITED || info.si_status != 0 ? -1 : 0;
}

static long long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(int argc, char **argv)
{
	char kind[16];
	int n;
	if (argc < 2)
		return 2;
	program = argv[1];
	hierarchies = argv + 2;
	look(masks, N(masks));
	look(sealed, N(sealed));
	setvbuf(stdout, NULL, _IOFBF, 1 << 16);
	while (scanf("%15s %d", kind, &n) == 2) {
		version = kind[0] == 'b' ? 0 : kind[1] - '0';
		for (int i = 0; i < n; i++) {
			long long began = now();
			if (run() < 0) {
				printf("%s: %s", failed ? failed : "the program", failed ? strerror(err) : "ended badly");
				break;
			}
			printf("%lld ", now() - began);
		}
		putchar('\n');
		fflush(stdout);
	}
	return 0;
}
