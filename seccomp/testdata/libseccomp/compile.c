// Compiles a policy with libseccomp and writes the program to standard output. The policy comes on standard input, a line each:
//
//   default ACTION          ACTION is the value that a filter returns
//   arch TOKEN              a further architecture, by libseccomp's token
//   rule ACTION NAME [ARG OP A B]...
//
// OP is 1 NE, 2 LT, 3 LE, 4 EQ, 5 GE, 6 GT, 7 MASKED_EQ. With the argument "tree" it makes a binary tree. A name that libseccomp does not
// know is printed to standard error, and passed over. A rule that it refuses ends the program with status 3. With the argument
// "names TOKEN FIRST" it prints numbers, counted from FIRST, and names of an architecture. With "time N" it compiles N times and prints nanoseconds for each.

#include <errno.h>
#include <seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <fcntl.h>

static scmp_filter_ctx filter;

static void die(const char *what, int rc)
{
	fprintf(stderr, "! %s: %s\n", what, strerror(-rc));
	exit(3);
}

static void rule(char *save, int tree)
{
	unsigned action = strtoul(strtok_r(NULL, " \n", &save), NULL, 0);
	const char *name = strtok_r(NULL, " \n", &save);
	struct scmp_arg_cmp args[12];
	unsigned n = 0;
	char *word;

	while ((word = strtok_r(NULL, " \n", &save))) {
		args[n].arg = atoi(word);
		args[n].op = atoi(strtok_r(NULL, " \n", &save));
		args[n].datum_a = strtoull(strtok_r(NULL, " \n", &save), NULL, 0);
		args[n].datum_b = strtoull(strtok_r(NULL, " \n", &save), NULL, 0);
		n++;
	}
	int nr = seccomp_syscall_resolve_name(name);
	if (nr == __NR_SCMP_ERROR) {
		fprintf(stderr, "%s\n", name);
		return;
	}
	int rc = seccomp_rule_add_array(filter, action, nr, n, args);
	if (rc)
		die(name, rc);
}

static void line(char *text, int tree)
{
	char *save, *word = strtok_r(text, " \n", &save);
	int rc;

	if (!word)
		return;
	if (!strcmp(word, "default")) {
		filter = seccomp_init(strtoul(strtok_r(NULL, " \n", &save), NULL, 0));
		if (!filter)
			die("init", -ENOMEM);
		if (tree)
			seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	} else if (!strcmp(word, "arch")) {
		uint32_t arch = strtoul(strtok_r(NULL, " \n", &save), NULL, 0);
		if (arch == seccomp_arch_native())
			return;
		rc = seccomp_arch_add(filter, arch);
		if (rc && rc != -EEXIST)
			die("arch", rc);
	} else if (!strcmp(word, "remove")) {
		seccomp_arch_remove(filter, seccomp_arch_native());
	} else if (!strcmp(word, "rule")) {
		rule(save, tree);
	}
}

static char *input;

static void compile(int tree, int out)
{
	char *copy = strdup(input), *save = NULL;

	for (char *l = strtok_r(copy, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
		char one[4096];
		snprintf(one, sizeof one, "%s", l);
		line(one, tree);
	}
	int rc = seccomp_export_bpf(filter, out);
	if (rc)
		die("export", rc);
	seccomp_release(filter);
	free(copy);
}

int main(int argc, char **argv)
{
	size_t size = 1 << 20, n = 0, got;

	if (argc > 3 && !strcmp(argv[1], "names")) {
		for (int nr = 0; nr < 7000; nr++) {
			char *name = seccomp_syscall_resolve_num_arch(strtoul(argv[2], NULL, 0), nr + strtoul(argv[3], NULL, 0));
			if (name)
				printf("%d %s\n", nr, name);
			free(name);
		}
		return 0;
	}
	input = calloc(size, 1);
	while ((got = fread(input + n, 1, size - n - 1, stdin)) > 0)
		n += got;
	if (argc > 2 && !strcmp(argv[1], "time")) {
		struct timespec a, b;
		int null = open("/dev/null", O_WRONLY);
		for (int i = 0; i < atoi(argv[2]); i++) {
			clock_gettime(CLOCK_MONOTONIC, &a);
			compile(1, null);
			clock_gettime(CLOCK_MONOTONIC, &b);
			printf("%ld\n", (b.tv_sec - a.tv_sec) * 1000000000L + b.tv_nsec - a.tv_nsec);
		}
		return 0;
	}
	compile(argc > 1 && !strcmp(argv[1], "tree"), 1);
	return 0;
}
