// arm64: entry point, system calls, and the child with a stack of its own.

enum {
	NR_fcntl = 25,
	NR_ioctl = 29,
	NR_close = 57,
	NR_write = 64,
	NR_exit_group = 94,
	NR_kill = 129,
	NR_rt_sigaction = 134,
	NR_rt_sigprocmask = 135,
	NR_rt_sigtimedwait = 137,
	NR_setpgid = 154,
	NR_prctl = 167,
	NR_getpid = 172,
	NR_clone = 220,
	NR_execve = 221,
	NR_wait4 = 260,
};

// The kernel leaves argc at the stack pointer, which is a multiple of 16.
__asm__(".globl _start\n"
	"_start:\n\t"
	"mov x29, xzr\n\t"
	"mov x30, xzr\n\t"
	"mov x0, sp\n\t"
	"bl start");

static long sys(long nr, long a, long b, long c, long d)
{
	register long x8 __asm__("x8") = nr;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;

	__asm__ volatile("svc 0"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3)
			 : "memory");
	return x0;
}

// start_child clones; the new task calls child(arg), which does not return, on
// the given stack. clone(flags, stack, parent_tid, tls, child_tid).
static inline __attribute__((always_inline)) long start_child(long flags, void *stack, void *arg)
{
	register long x8 __asm__("x8") = NR_clone;
	register long x0 __asm__("x0") = flags;
	register void *x1 __asm__("x1") = stack;

	__asm__ volatile("svc 0\n\t"
			 "cbnz x0, 1f\n\t"
			 "mov x29, xzr\n\t"
			 "mov x0, %[arg]\n\t"
			 "bl child\n"
			 "1:"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), [arg] "r"(arg)
			 : "x30", "memory", "cc");
	return x0;
}
