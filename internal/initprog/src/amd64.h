// amd64: entry point, system calls, and the child with a stack of its own.

enum {
	NR_write = 1,
	NR_close = 3,
	NR_rt_sigaction = 13,
	NR_rt_sigprocmask = 14,
	NR_ioctl = 16,
	NR_getpid = 39,
	NR_clone = 56,
	NR_execve = 59,
	NR_wait4 = 61,
	NR_kill = 62,
	NR_fcntl = 72,
	NR_setpgid = 109,
	NR_rt_sigtimedwait = 128,
	NR_prctl = 157,
	NR_exit_group = 231,
};

// The kernel leaves argc at the stack pointer.
__asm__(".globl _start\n"
	"_start:\n\t"
	"xor %ebp, %ebp\n\t"
	"mov %rsp, %rdi\n\t"
	"and $-16, %rsp\n\t"
	"call start");

static long sys(long nr, long a, long b, long c, long d)
{
	register long r10 __asm__("r10") = d;
	long ret;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "0"(nr), "D"(a), "S"(b), "d"(c), "r"(r10)
			 : "rcx", "r11", "memory");
	return ret;
}

// start_child clones; the new task calls child(arg), which does not return, on
// the given stack. clone(flags, stack, parent_tid, child_tid, tls).
static inline __attribute__((always_inline)) long start_child(long flags, void *stack, void *arg)
{
	long ret;

	__asm__ volatile("syscall\n\t"
			 "test %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "xor %%ebp, %%ebp\n\t"
			 "mov %[arg], %%rdi\n\t"
			 "call child\n"
			 "1:"
			 : "=a"(ret)
			 : "0"((long)NR_clone), "D"(flags), "S"(stack), [arg] "r"(arg)
			 : "rcx", "r11", "memory", "cc");
	return ret;
}
