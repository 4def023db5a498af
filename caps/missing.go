//go:build linux

package caps

import (
	"slices"
	"strings"
	"syscall"

	"github.com/caisson-dev/caisson/plan"
)

// Need is a capability for want of which the kernel may have refused something.
type Need struct {
	Any Set    // each of these alone would have been enough
	For string // what it is needed for, as "to mount and unmount"
}

// Missing tells why a system call was refused to who has the state: which capabilities it lacked that could have helped, most likely first.
// The call is named as by strace(1): "mount". The table is that of capabilities(7), and of what the calls check; nil means that no
// capability would have helped: another errno, a call that needs none, or all that it needs are effective.
//
// Effective capabilities count only for what belongs to the same user namespace or one below it: who has SysAdmin and gets EPERM from
// mount(2) has it in the wrong place, or is held by a security module, a filter or a locked mount.
func Missing(call string, err error, s State) (needs []Need) {
	errno := plan.Errno(err)
	if errno == 0 {
		return nil
	}
	call = strings.TrimSuffix(strings.ToLower(call), "(2)")
	for _, r := range refusals() {
		if s.Effective&r.any == 0 && slices.Contains(r.errnos, errno) && slices.Contains(strings.Fields(r.calls), call) {
			needs = append(needs, Need{Any: r.any, For: r.what})
		}
	}
	return needs
}

// refusal is one line of the table: what the calls answer to who has none of some capabilities.
type refusal struct {
	calls  string
	errnos []syscall.Errno
	any    Set
	what   string
}

func refusals() []refusal { return slices.Concat(onFiles(), onProcesses(), onSystem()) }

func onFiles() []refusal {
	const (
		reading = "open openat openat2 access faccessat faccessat2 execve execveat stat lstat fstatat newfstatat statx readlink readlinkat chdir fchdir getdents64 listxattr getxattr inotify_add_watch"
		attrs   = "setxattr lsetxattr fsetxattr setxattrat removexattr lremovexattr fremovexattr removexattrat"
		naming  = "mkdir mkdirat mknod mknodat symlink symlinkat link linkat unlink unlinkat rename renameat renameat2 rmdir creat truncate utime utimes utimensat setxattr chroot bind connect"
	)
	denied, perm := []syscall.Errno{syscall.EACCES}, []syscall.Errno{syscall.EPERM}
	return []refusal{
		{reading, denied, DacReadSearch | DacOverride, "to read a file or search a directory that its permissions close"},
		{"open openat openat2 execve execveat " + naming, denied, DacOverride, "to write to a file or directory that its permissions close"},
		{"bind", denied, NetBindService, "to bind a port below net.ipv4.ip_unprivileged_port_start"},
		{"chown fchown lchown fchownat", perm, Chown, "to change the owner of a file, or its group to a foreign one"},
		{"chmod fchmod fchmodat fchmodat2 utime utimes utimensat futimesat", perm, Fowner, "to change a file of another user"},
		{"open openat openat2 fcntl", perm, Fowner, "to open a file of another user with O_NOATIME"},
		{"unlink unlinkat rename renameat renameat2 rmdir", perm, Fowner, "to remove a file of another user from a sticky directory"},
		{"link linkat", perm, Fowner, "to link a file of another user (fs.protected_hardlinks)"},
		{"open_by_handle_at", perm, DacReadSearch, "to open a file by its handle"},
		{"linkat", []syscall.Errno{syscall.ENOENT}, DacReadSearch, "to link an open file by AT_EMPTY_PATH"},
		{"mknod mknodat", perm, Mknod, "to make a device node"},
		{"fcntl", denied, Lease, "to take a lease on a file of another user"},
		{"fcntl", perm, SysResource, "to make a pipe larger than fs.pipe-max-size"},
		{attrs, perm, Setfcap, "to set the capabilities of a file"},
		{attrs, perm, SysAdmin, "to set trusted.* or security.* attributes"},
		{"ioctl open openat openat2 unlink unlinkat rename renameat renameat2 link linkat chmod chown truncate", perm, LinuxImmutable, "to change an immutable or append-only file, or these flags"},
		{"fanotify_init fanotify_mark", perm, SysAdmin, "to watch whole mounts or file systems"},
		{"quotactl quotactl_fd", perm, SysAdmin, "to administer quotas"},
		{"write pwrite64 writev fallocate mkdir creat", []syscall.Errno{syscall.EDQUOT, syscall.ENOSPC}, SysResource, "to exceed a quota or use reserved blocks"},
	}
}

func onProcesses() []refusal {
	denied, perm := []syscall.Errno{syscall.EACCES}, []syscall.Errno{syscall.EPERM}
	either := []syscall.Errno{syscall.EPERM, syscall.EACCES}
	return []refusal{
		{"kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal", perm, Kill, "to signal a process of another user"},
		{"setuid setreuid setresuid setfsuid", perm, Setuid, "to become another user"},
		{"setgid setregid setresgid setfsgid setgroups", perm, Setgid, "to change groups"},
		{"capset prctl", perm, Setpcap, "to drop from the bounding set, add to the inheritable set or set securebits"},
		{"prctl", perm, SysResource, "to change the memory map (PR_SET_MM)"},
		{"prctl seccomp", denied, SysAdmin, "to install a filter without no_new_privs"},
		{"ptrace process_vm_readv process_vm_writev process_madvise kcmp get_robust_list pidfd_getfd", perm, SysPtrace, "to look into a process of another user, or one with more capabilities"},
		{"open openat openat2 readlink readlinkat", denied, SysPtrace, "to look into a process of another user in /proc"},
		{"userfaultfd", perm, SysPtrace, "to handle faults of the kernel"},
		{"setpriority nice", either, SysNice, "to raise a priority, or change that of another user's process"},
		{"sched_setscheduler sched_setparam sched_setattr sched_setaffinity ioprio_set migrate_pages move_pages mbind", perm, SysNice, "to schedule in real time, or another user's process"},
		{"setrlimit prlimit64", perm, SysResource, "to raise a hard limit"},
		{"fork vfork clone clone3", []syscall.Errno{syscall.EAGAIN}, SysResource | SysAdmin, "to exceed RLIMIT_NPROC"},
		{"clone clone3 unshare", perm, SysAdmin, "to make namespaces other than user namespaces"},
		{"clone3", perm, CheckpointRestore | SysAdmin, "to choose the pid of a child"},
		{"setns", perm, SysAdmin, "to enter a namespace"},
		{"setns", perm, SysChroot, "to enter a mount namespace"},
		{"chroot", perm, SysChroot, "to change the root directory"},
		{"mlock mlock2 mlockall mmap shmctl shmget memfd_create", []syscall.Errno{syscall.EPERM, syscall.ENOMEM, syscall.EAGAIN}, IpcLock, "to lock more memory than RLIMIT_MEMLOCK, or use huge pages"},
		{"shmget shmat shmctl msgget msgsnd msgrcv msgctl semget semop semtimedop semctl", denied, IpcOwner, "to use System V IPC that its permissions close"},
		{"shmctl msgctl semctl", perm, SysAdmin, "to change or remove System V IPC of another user"},
		{"perf_event_open", either, Perfmon | SysAdmin, "to measure more than kernel.perf_event_paranoid allows"},
		{"timer_create timerfd_create timerfd_settime", perm, WakeAlarm, "to set a timer that wakes the machine"},
	}
}

func onSystem() []refusal {
	perm := []syscall.Errno{syscall.EPERM}
	return []refusal{
		{"mount umount umount2 pivot_root open_tree fsopen fspick fsconfig fsmount move_mount mount_setattr statmount listmount", perm, SysAdmin, "to mount and unmount"},
		{"sethostname setdomainname", perm, SysAdmin, "to set the name of the host"},
		{"swapon swapoff", perm, SysAdmin, "to change swap space"},
		{"ioctl", perm, NetAdmin, "to configure a network interface"},
		{"ioctl", perm, SysAdmin, "to administer a device"},
		{"ioctl vhangup", perm, SysTtyConfig, "to configure or hang up a terminal"},
		{"iopl ioperm ioctl", perm, SysRawio, "to reach hardware directly"},
		{"socket", perm, NetRaw, "to make a raw or packet socket"},
		{"setsockopt", perm, NetAdmin, "to set privileged socket options"},
		{"setsockopt", perm, NetRaw, "to bind to a device, or be a transparent proxy"},
		{"sendto sendmsg sendmmsg", perm, NetAdmin, "to configure the network by netlink"},
		{"sendto sendmsg", perm, AuditWrite | AuditControl, "to write to the audit log"},
		{"bind", perm, AuditRead, "to read the audit log"},
		{"sendmsg", perm, SysAdmin | Setuid | Setgid, "to send another process's credentials"},
		{"init_module finit_module delete_module", perm, SysModule, "to load and unload modules"},
		{"acct", perm, SysPacct, "to switch process accounting"},
		{"reboot kexec_load kexec_file_load", perm, SysBoot, "to restart the machine or load another kernel"},
		{"settimeofday stime adjtimex clock_settime clock_adjtime", perm, SysTime, "to set the clock"},
		{"syslog", perm, Syslog | SysAdmin, "to read or clear the kernel's log"},
		{"bpf", perm, Bpf | SysAdmin, "to load programs and make maps"},
		{"bpf", perm, NetAdmin | SysAdmin, "to load programs that see packets"},
		{"bpf", perm, Perfmon | SysAdmin, "to load programs that trace"},
		{"io_uring_setup", perm, SysAdmin, "to use io_uring where kernel.io_uring_disabled forbids it"},
		{"keyctl add_key", []syscall.Errno{syscall.EACCES, syscall.EDQUOT}, SysAdmin | SysResource, "to change a key of another user or exceed its quota"},
	}
}
