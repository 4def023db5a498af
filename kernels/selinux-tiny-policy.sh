#!/bin/sh
# selinux-tiny-policy.sh prints a small SELinux policy in CIL, for secilc -M true -c 33.
#
# It has what a container's label needs: system_u:system_r:container_t:s0:cA,cB for processes and
# system_u:object_r:container_file_t for their files, kept apart by categories (MCS). All else is base_t, and may do
# everything. Debian's own policy is far larger, and has no container_t.
set -eu

# The initial SIDs in the kernel's order (security/selinux/include/initial_sid_to_string.h).
sids="kernel security unlabeled fs file file_labels init any_socket port netif netmsg node igmp_packet icmp_socket
tcp_socket sysctl_modprobe sysctl sysctl_fs sysctl_kernel sysctl_net sysctl_net_unix sysctl_vm sysctl_dev kmod policy
scmp_packet devnull"
file="read write append open execute unlink rename create setattr getattr"
dir="read write search add_name remove_name"
process="transition dyntransition signal ptrace"

# Classes and permissions that are not listed here are allowed.
classes() {
	echo "(handleunknown allow)(mls true)(policycap open_perms)(policycap nnp_nosuid_transition)"
	echo "(class process ($process))(class file ($file))(class dir ($dir))(class sock_file (write))"
	# What has no class cannot be relabelled. That these have one, with a permission that is never asked, is enough.
	echo "(class lnk_file (mounton))(class fifo_file (mounton))"
	echo "(classorder (process file dir sock_file lnk_file fifo_file))"
	for s in $sids; do echo "(sid $s)"; done
	echo "(sidorder ($(echo $sids)))"
}

types() {
	echo "(user system_u)(role system_r)(role object_r)"
	echo "(type base_t)(type container_t)(type container_file_t)"
	echo "(typeattribute any)(typeattributeset any (base_t container_t container_file_t))"
	echo "(userrole system_u system_r)(userrole system_u object_r)(roletype system_r any)(roletype object_r any)"
}

categories() {
	echo "(sensitivity s0)(sensitivityorder (s0))"
	for i in $(seq 0 1023); do echo "(category c$i)"; done
	echo "(categoryorder ($(seq -f c%g -s ' ' 0 1023)))(sensitivitycategory s0 (range c0 c1023))"
	echo "(userlevel system_u (s0))(userrange system_u ((s0)(s0 (range c0 c1023))))"
}

# The kernel and init run with every category, and so dominate every container.
contexts() {
	for s in $sids; do
		role=object_r
		case $s in kernel | init) role=system_r ;; esac
		echo "(sidcontext $s (system_u $role base_t ((s0)(s0 (range c0 c1023)))))"
	done
	base="(system_u object_r base_t ((s0)(s0)))"
	for f in tmpfs devpts; do echo "(fsuse trans $f $base)"; done
	for f in ext4 overlay xfs btrfs; do echo "(fsuse xattr $f $base)"; done
	for f in proc sysfs cgroup2 9p rootfs selinuxfs securityfs; do echo "(genfscon $f / $base)"; done
}

# A container may read and run the system's files, and create and remove only files of its own type.
rules() {
	echo "(allow any any (process ($process)))"
	echo "(allow base_t any (file ($file)))(allow base_t any (dir ($dir)))(allow base_t any (sock_file (write)))"
	echo "(allow container_t base_t (file (read open execute getattr write append)))"
	echo "(allow container_t base_t (dir (read search)))"
	echo "(allow container_t container_file_t (file ($file)))(allow container_t container_file_t (dir ($dir)))"
	echo "(allow container_t self (file ($file)))(allow container_t self (dir (read write search)))"
}

# h1 dom h2: the subject's categories include the object's.
constraints() {
	echo "(mlsconstrain (file ($file)) (dom h1 h2))"
	echo "(mlsconstrain (dir ($dir)) (dom h1 h2))"
	echo "(mlsconstrain (process (signal ptrace)) (dom h1 h2))"
}

classes
types
categories
contexts
rules
constraints
