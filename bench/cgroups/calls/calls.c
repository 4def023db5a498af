// calls makes the calls for a control group of version 1, and nothing else: mkdir in some hierarchies, limits of memory, pids and cpu,
// a process that enters, and rmdir. It does so twice in turns: in the hierarchies that caisson uses, entered by "0" into tasks, by the child (on version 2 into
// cgroup.procs, where caisson has clone3 do it); and in those of opencontainers/cgroups, entered by the pid into cgroup.procs, by the parent.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST 100000
static double times[2][5][MOST];
static const char *labels[] = {"mkdir", "limits", "enter", "rmdir", "sum"};
static const char *names[] = {"as caisson", "as opencontainers"};
static const char *hierarchies[2][10] = {
	{"memory", "cpu", "pids", "unified"},
	{"memory", "cpu", "pids", "unified", "cpuacct", "blkio", "freezer", "systemd"},
};

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static void check(int ok, const char *what)
{
	if (!ok) {
		perror(what);
		exit(1);
	}
}

static void set(int dir, const char *file, const char *value)
{
	int fd = openat(dir, file, O_WRONLY);
	check(fd >= 0 && write(fd, value, strlen(value)) >= 0, file);
	close(fd);
}

static void once(int who, const char *name, int round)
{
	int top[10], dir[10], n = 0, pipes[2][2];
	double t[5] = {0}, begin;
	const char *used[10];
	char pid[16];
	for (const char **h = hierarchies[who]; *h; h++) {
		char path[64];
		snprintf(path, sizeof path, "/sys/fs/cgroup/%s", *h);
		top[n] = open(path, O_PATH);
		check(top[n] >= 0 || n > 2, path);
		if (top[n] >= 0) // of the rest, what this machine has
			used[n++] = *h;
	}
	begin = now();
	for (int i = 0; i < n; i++) {
		check(mkdirat(top[i], name, 0755) == 0, "mkdir");
		dir[i] = openat(top[i], name, O_PATH);
	}
	t[0] = now() - begin;
	begin = now();
	set(dir[0], "memory.limit_in_bytes", "67108864");
	set(dir[1], "cpu.cfs_period_us", "100000");
	set(dir[1], "cpu.cfs_quota_us", "50000");
	set(dir[2], "pids.max", "64");
	t[1] = now() - begin;
	check(pipe(pipes[0]) == 0 && pipe(pipes[1]) == 0, "pipe");
	pid_t child = fork();
	check(child >= 0, "fork");
	if (child == 0) {
		double took;
		begin = now();
		for (int i = 0; who == 0 && i < n; i++)
			set(dir[i], strcmp(used[i], "unified") ? "tasks" : "cgroup.procs", "0");
		took = now() - begin;
		check(write(pipes[0][1], &took, sizeof took) == sizeof took, "write");
		check(read(pipes[1][0], &took, 1) == 1, "read");
		_exit(0);
	}
	check(read(pipes[0][0], &t[2], sizeof t[2]) == sizeof t[2], "read");
	if (who == 1) {
		snprintf(pid, sizeof pid, "%d", child);
		begin = now();
		for (int i = 0; i < n; i++)
			set(dir[i], "cgroup.procs", pid);
		t[2] = now() - begin;
	}
	check(write(pipes[1][1], "", 1) == 1, "write");
	waitpid(child, NULL, 0);
	begin = now();
	for (int i = 0; i < n; i++)
		check(unlinkat(top[i], name, AT_REMOVEDIR) == 0, "rmdir");
	t[3] = now() - begin;
	for (int i = 0; i < n; i++) {
		close(top[i]);
		close(dir[i]);
	}
	for (int i = 0; i < 2; i++) {
		close(pipes[i][0]);
		close(pipes[i][1]);
	}
	t[4] = t[0] + t[1] + t[2] + t[3];
	for (int i = 0; i < 5; i++)
		times[who][i][round] = t[i];
}

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 100;
	check(rounds > 0 && rounds <= MOST, "rounds");
	for (int r = 0; r < rounds; r++)
		for (int who = 0; who < 2; who++) {
			char name[64];
			snprintf(name, sizeof name, "caisson-calls-%d-%d-%d", getpid(), r, who);
			once(who, name, r);
		}
	for (int who = 0; who < 2; who++) {
		printf("%20s", names[who]);
		for (int i = 0; i < 5; i++) {
			qsort(times[who][i], rounds, sizeof(double), ascending);
			printf("   %s %.1f us", labels[i], times[who][i][rounds / 2]);
		}
		printf("\n");
	}
	return 0;
}
