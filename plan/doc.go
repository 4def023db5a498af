//go:build linux

// Package plan is the contract between the primitives of a sandbox and the launcher that starts it.
//
// A [Primitive] does not act. It lowers itself into a [Plan]: flags for the clone, actions of the parent before the
// clone, a flat list of raw system calls for the child, actions of the parent while the child waits, and what undoes
// them. The launcher performs the plan; [Plan.String] prints it, one step a line, before anything has been done:
//
//	 1 parent  open "/srv/root" as <root>                                             # chroot.Pivot
//	 2 parent  clone3(CLONE_NEWNS|CLONE_NEWPID|CLONE_CLEAR_SIGHAND|CLONE_PIDFD|CLONE_VFORK|CLONE_VM)
//	 3 child   mount("", "/", NULL, MS_REC|MS_PRIVATE, NULL)                           # chroot.Pivot
//	 4 child   $0 = open_tree(<root>, "", OPEN_TREE_CLONE|AT_EMPTY_PATH|AT_RECURSIVE)  # chroot.Pivot
//	...
//
// The number before a step is the k of an [Error]'s "step k of n".
//
// # A primitive in five lines
//
//	type Hostname string
//
//	func (h Hostname) Apply(p *plan.Plan) error {
//		p.Clone(unix.CLONE_NEWUTS)
//		p.Child(plan.Names, plan.Call("sethostname", unix.SYS_SETHOSTNAME, plan.Str(string(h)), plan.Int(len(h))))
//		return p.Claim("hostname")
//	}
//
// plantest.Check tests that a primitive keeps the contract, as testing/fstest.TestFS does for file systems.
//
// # Phases
//
// Phases, not the order of the parts, decide what the child does first. Within a phase the caller's order is kept.
// Each boundary has a reason:
//
//	Cgroup       before all else: what the sandbox uses is charged to it from its first call on; needs the
//	             host's file systems and rights (cgroups(7)).
//	Join         existing namespaces, before new ones are made: a new namespace belongs to the user namespace in
//	             which it was made (setns(2), user_namespaces(7)).
//	             Here the parent acts while the child waits: the child exists and has done nothing yet.
//	Users        only now are the id maps written: before this the child has no ids of its own and may not
//	             become root inside (user_namespaces(7)).
//	Sources      opens and clones what comes from the host (open_tree(2), fsopen(2)): the last phase in which a path
//	             means a path of the host. Calls that need no ids ([Op.Early]) come before Users, while the parent acts.
//	Root         the new root (pivot_root(2)); afterwards no path of the host can be named.
//	Mounts       attaches what Sources made: targets are resolved in the new root, where no symbolic link leads out.
//	Names        hostname, sysctls: need capabilities, and the sandbox's own /proc (uts_namespaces(7)).
//	Seal         makes read-only or masks what the phases before had to write.
//	Limits       resource limits, priority, affinity: may need capabilities, and would hinder the phases before
//	             (getrlimit(2)).
//	Files        the standard descriptors, session and terminal; every other descriptor is closed (dup(2), setsid(2)).
//	Bounds       the bounding set and keep-caps: needs CAP_SETPCAP, which a change of the user takes away
//	             (capabilities(7)).
//	Credentials  groups and user: drops what the phases before needed (credentials(7)).
//	Capabilities the sets that the user is left with: after the change of the user, which clears them.
//	Directory    the working directory, as the user who will be in it (chdir(2)).
//	Labels       AppArmor and SELinux: what happens at exec; the label may forbid everything above (apparmor(7)).
//	Landlock     restricts itself, so the files that Labels needs are still open to it (landlock(7)).
//	Seccomp      a filter may forbid every call above (seccomp(2)).
//	Last         gives up CAP_SYS_ADMIN where the filters needed it: one capset(2), which they must allow.
//
// After Last there is nothing but execve(2). no_new_privs, where some part asks for it ([Plan.NoNewPrivs]), is set
// before Labels: Landlock and Seccomp need it, or CAP_SYS_ADMIN ([Plan.NeedAdmin]).
//
// When the command has been executed, and before the start returns, the parent may look at it ([Plan.After]) and at what the child
// has read for it ([Plan.Answer]).
//
// # What a child can do
//
// The child shares its memory with the host until it executes. It runs no Go code but one loop over the calls, so a
// call may do little more than be made: save its result for a later call ([Op.Save], [Saved]), tolerate one errno
// ([Op.Tolerate]) and then skip the calls that depend on it ([Op.Skip]). All decisions belong to the parent.
package plan
