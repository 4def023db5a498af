//go:build linux

// Package namespaces makes, joins, keeps and shows Linux namespaces (namespaces(7)).
//
// A namespace gives processes their own view of one thing that the system otherwise has once. There are eight kinds:
//
//	User    user and group ids, capabilities         user_namespaces(7)       Linux 3.8
//	PID     process ids                              pid_namespaces(7)        Linux 2.6.24
//	Mount   the list of mounts                       mount_namespaces(7)      Linux 2.4.19
//	Net     interfaces, addresses, routes, ports     network_namespaces(7)    Linux 2.6.24
//	IPC     System V IPC, POSIX message queues       ipc_namespaces(7)        Linux 2.6.19
//	UTS     host name, NIS domain name               uts_namespaces(7)        Linux 2.6.19
//	Cgroup  the root of the control groups           cgroup_namespaces(7)     Linux 4.6
//	Time    monotonic and boot-time clock            time_namespaces(7)       Linux 5.6
//
// # New ones
//
// A [Set] is the part of a sandbox that asks for new namespaces; what goes into them are parts, too:
//
//	namespaces.User | namespaces.PID | namespaces.UTS
//	namespaces.Hostname("web")
//	namespaces.TimeOffsets{Boottime: 24 * time.Hour}
//	namespaces.Sysctl{Name: "net.ipv4.ip_unprivileged_port_start", Value: "0"}
//	namespaces.MaxUserNamespaces(0)
//
// # Users
//
// Every namespace belongs to the user namespace in which it was made, and who has a capability there has it over what
// belongs to it. This is how an ordinary user becomes root of a sandbox and of nothing else: with [User] in the set no
// privilege is needed, where the system allows user namespaces to all.
//
// Which ids there are inside, and who they are outside, is for [IDs] to say. Without it the caller is root inside, and
// there is nobody else. More ids need privilege, or a grant in /etc/subuid; [SubordinateIDs] reads it.
//
// # Existing ones
//
// [Join] is the part that enters existing namespaces, of a process or of a file. [Of], [Open] and [OfFile] open them,
// [New] makes some without a process, [Pin] keeps one at a path, [List] shows what there is.
//
// [Do] runs a Go function in namespaces. That is a matter of threads: most of what the kernel knows of namespaces, it
// knows per thread, while goroutines move from one to another. Do has the only safe way, a thread that is thrown away.
//
// # Errors
//
// A value that makes no sense is an error of its own type, with EINVAL, before anything is done: [*SetError],
// [*RangeError], [*SysctlError], [*SubordinateError]. Everything else is an [*Error], with the errno. What the kernel
// or this package has no way to do is errors.ErrUnsupported for errors.Is. When a sandbox is started they stand inside
// a plan.Error, which names the step.
//
// # Example
//
// A network namespace that outlives those who use it:
//
//	made, err := namespaces.New(namespaces.Net)
//	if err != nil {
//		return err
//	}
//	defer made.Close()
//	if err := namespaces.Pin(made.Find(namespaces.Net), "/run/netns/blue"); err != nil {
//		return err
//	}
//	return namespaces.Do(made, func() error {
//		return exec.Command("ip", "link", "set", "lo", "up").Run()
//	})
package namespaces
