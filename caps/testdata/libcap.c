/* Reads texts, one a line, and prints what libcap makes of them: of "t TEXT" the capabilities, of "i TEXT" the IAB tuple. */
#include <stdio.h>
#include <string.h>
#include <sys/capability.h>

static void text(const char *in) {
	cap_t c = cap_from_text(in);
	char *out = c ? cap_to_text(c, NULL) : NULL;
	puts(out ? out : "error");
	if (out) cap_free(out);
	if (c) cap_free(c);
}

static void iab(const char *in) {
	cap_iab_t c = cap_iab_from_text(in);
	char *out = c ? cap_iab_to_text(c) : NULL;
	puts(out ? out : "error");
	if (out) cap_free(out);
	if (c) cap_free(c);
}

int main(void) {
	static char line[1 << 16];
	while (fgets(line, sizeof line, stdin)) {
		line[strcspn(line, "\n")] = 0;
		if (line[0] == 't') text(line + 2);
		else iab(line + 2);
	}
	return 0;
}
