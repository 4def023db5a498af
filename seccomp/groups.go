//go:build linux

package seccomp

// groups are named for what somebody may intend, as those of systemd are, whose names they have where they mean the same.
var groups = [...]group{
	{"@aio", "asynchronous I/O, io_uring too", `io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit @io-uring`},
	{"@basic-io", "reading, writing and closing what is open", `_llseek close close_range dup dup2 dup3 lseek pread64 preadv preadv2 pwrite64 pwritev pwritev2
		read readv write writev`},
	{"@chown", "changing owners of files", `chown chown32 fchown fchown32 fchownat lchown lchown32`},
	{"@clock", "setting clocks", `adjtimex clock_adjtime clock_adjtime64 clock_settime clock_settime64 settimeofday stime`},
	{"@cpu-emulation", "parts of the processor that only emulators use", `modify_ldt subpage_prot switch_endian vm86 vm86old`},
	{"@debug", "looking into other processes", `kcmp lookup_dcookie perf_event_open pidfd_getfd ptrace process_madvise process_vm_readv process_vm_writev rtas
		s390_runtime_instr sys_debug_setcontext`},
	{"@file-system", "files and directories by name, and what is known of them", `access cachestat chdir chmod creat faccessat faccessat2 fallocate fchdir fchmod
		fchmodat fchmodat2 fcntl fcntl64 fgetxattr file_getattr file_setattr flistxattr fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs
		fstatfs64 ftruncate ftruncate64 futimesat getcwd getdents getdents64 getxattr getxattrat inotify_add_watch inotify_init inotify_init1
		inotify_rm_watch lgetxattr link linkat listxattr listxattrat llistxattr lremovexattr lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat
		newfstatat oldfstat oldlstat oldstat open openat openat2 readlink readlinkat removexattr removexattrat rename renameat
		renameat2 rmdir setxattr setxattrat stat stat64 statfs statfs64 statx symlink symlinkat truncate truncate64 umask unlink unlinkat ustat utime
		utimensat utimensat_time64 utimes`},
	{"@io-event", "waiting for descriptors", `_newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
		epoll_wait_old eventfd eventfd2 poll ppoll ppoll_time64 pselect6 pselect6_time64 select`},
	{"@io-uring", "io_uring, whose operations no filter sees", `io_uring_enter io_uring_register io_uring_setup`},
	{"@ipc", "System V and POSIX IPC, pipes, memory of other processes", `@sysv-ipc @posix-ipc memfd_create memfd_secret pipe pipe2 process_madvise process_vm_readv
		process_vm_writev`},
	{"@keyring", "the kernel's key rings, which namespaces do not divide", `add_key keyctl request_key`},
	{"@landlock", "a program restricting itself", `landlock_add_rule landlock_create_ruleset landlock_restrict_self`},
	{"@memlock", "locking memory", `mlock mlock2 mlockall munlock munlockall`},
	{"@module", "kernel modules", `create_module delete_module finit_module get_kernel_syms init_module query_module`},
	{"@mount", "changing what is mounted, by the old and the new calls", `chroot fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree open_tree_attr pivot_root
		umount umount2`},
	{"@namespaces", "making and entering namespaces; clone and clone3 do it too, by their flags", `setns unshare`},
	{"@network-io", "sockets", `accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 recvmsg send
		sendmmsg sendmsg sendto setsockopt shutdown socket socketcall socketpair`},
	{"@obsolete", "calls that no program of today uses", `_sysctl afs_syscall bdflush break create_module ftime get_kernel_syms getpmsg gtty idle lock mpx
		prof profil putpmsg query_module security sgetmask ssetmask stime stty sysfs tuxcall ulimit uselib ustat vserver`},
	{"@pkey", "memory protection keys", `pkey_alloc pkey_free pkey_mprotect`},
	{"@posix-ipc", "POSIX message queues", `mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink`},
	{"@privileged", "what needs a capability", `@chown @clock @module @raw-io @reboot @swap @mount @setuid _sysctl acct bpf capset fanotify_init fanotify_mark
		kexec_file_load kexec_load nfsservctl open_by_handle_at quotactl quotactl_fd setdomainname sethostname setns syslog vhangup`},
	{"@process", "making, ending and watching processes", `capget clone clone3 execveat exit exit_group fork getpid getppid getrusage gettid kill
		pidfd_open pidfd_send_signal prctl process_mrelease rt_sigqueueinfo rt_tgsigqueueinfo setns swapcontext tgkill times tkill unshare vfork
		execve wait4 waitid waitpid arch_prctl`},
	{"@raw-io", "ports and buses", `ioperm iopl pciconfig_iobase pciconfig_read pciconfig_write s390_pci_mmio_read s390_pci_mmio_write`},
	{"@reboot", "restarting the machine, another kernel", `kexec_file_load kexec_load reboot`},
	{"@resources", "limits, priorities, placement", `ioprio_set mbind migrate_pages move_pages nice sched_setaffinity sched_setattr sched_setparam
		sched_setscheduler set_mempolicy set_mempolicy_home_node setpriority setrlimit`},
	{"@runtime", "what every program and the runtimes of languages need: memory, threads, signals, time, ids", `brk madvise map_shadow_stack mmap mmap2 mprotect mremap
		mseal msync munmap mincore futex futex_time64 futex_wait futex_wake futex_waitv futex_requeue get_robust_list set_robust_list get_thread_area
		set_thread_area set_tid_address set_tls get_tls arch_prctl rseq membarrier restart_syscall sched_yield sched_getaffinity sched_getparam sched_getscheduler
		sched_getattr sched_get_priority_max sched_get_priority_min sched_rr_get_interval sched_rr_get_interval_time64 getcpu getpriority
		getrandom getrlimit ugetrlimit prlimit64 uname sysinfo exit exit_group rt_sigreturn sigreturn getegid getegid32
		geteuid geteuid32 getgid getgid32 getgroups getgroups32 getpgid getpgrp getpid getppid getresgid getresgid32 getresuid getresuid32 getsid gettid getuid
		getuid32 getrusage times capget clock_getres clock_getres_time64 clock_gettime clock_gettime64 gettimeofday time ioprio_get
		riscv_hwprobe riscv_flush_icache cacheflush breakpoint uretprobe uprobe @signal @timer`},
	{"@setuid", "changing user and groups", `setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setregid setregid32 setresgid
		setresgid32 setresuid setresuid32 setreuid setreuid32 setuid setuid32`},
	{"@signal", "handling signals", `pause rt_sigaction rt_sigpending rt_sigprocmask rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 sigaction
		sigaltstack signal signalfd signalfd4 sigpending sigprocmask sigsuspend`},
	{"@swap", "swap space", `swapoff swapon`},
	{"@sync", "writing to disk", `fdatasync fsync msync sync sync_file_range sync_file_range2 arm_sync_file_range syncfs`},
	{"@sysv-ipc", "System V IPC", `ipc msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget`},
	{"@timer", "clocks and timers of one's own", `alarm clock_nanosleep clock_nanosleep_time64 getitimer nanosleep setitimer timer_create timer_delete
		timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64
		timerfd_settime timerfd_settime64`},
}
