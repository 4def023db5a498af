//go:build linux

package main

const usage = `Usage: run [flags] [--] command [argument...]

Runs a command in a sandbox, as docker run does.

File system
      --rootfs DIR             root directory (default: the host's, read-only, with scratch /tmp and /run)
      --layer DIR              a directory with part of the root directory; may be repeated, each lies on those before
                               (overlayfs). What the command writes is kept in memory
      --image FILE|DIR         an OCI layout, an archive of docker save, or the tarball of a root directory, below any
                               --layer; unpacked once, in the caller's cache. Its command, environment, user and
                               working directory are the default
      --entrypoint PROGRAM     instead of the image's
      --commit DIR             what the command has written becomes a layer, which must not exist
      --storage-driver NAME    how layers are put together: overlay2 (default), fuse-overlayfs, btrfs, zfs,
                               vfs (copies), or auto for the first of these that works
      --read-only              make the root directory read-only; volumes and tmpfs stay writable
  -v, --volume SRC:DST[:OPTIONS]
                               show a file or directory of the host in the sandbox; SRC must exist. In the host's
                               own root DST must exist too, or be below /tmp, /run or a --tmpfs. Options: ro, rw;
                               exec, noexec; dev, nodev; suid, nosuid; bind (without the mounts below), rbind;
                               private, slave, shared, also with r before; z, Z (SELinux labels, for all sandboxes
                               or this one; without SELinux nothing is done)
                               (default: rw,exec,nodev,nosuid,rbind,private)
      --mount type=bind,source=SRC,target=DST[,readonly][,bind-propagation=private|slave|shared]
      --mount type=tmpfs,target=DST[,tmpfs-size=64m][,tmpfs-mode=1777]
                               docker run's other way to say so
      --tmpfs DST[:OPTIONS]    scratch directory in memory; options size=64m (b, k, m, g), mode=1777, nr_inodes=1000,
                               noexec, and for docker run's sake exec, rw, nosuid, nodev, which it has
      --device HOST[:DST][:rwm]
                               show a device of the host. With less than rwm (read, write, mknod) a control group
                               sees to it: --device-cgroup-rule
      --shm-size SIZE          of /dev/shm (default: 64m)
  -w, --workdir DIR            working directory, absolute; must exist (default: /)
                               /sys and /sys/fs/cgroup are the sandbox's own, read-only; with --network host, and
                               where the kernel does not allow a user another /sys, the host's root shows its own

Identity
  -u, --user USER[:GROUP]      names or numbers; names as in the root directory's /etc/passwd and /etc/group
      --group-add GROUP        further group; may be repeated
  -h, --hostname NAME          (default: random)
      --domainname NAME        NIS domain name
      --userns MODE            host: none, as docker run has it; keep-id: one's own ids inside;
                               auto: root inside is nobody outside, with subordinate ids (subuid(5))
                               (default: host for root; for others one in which they are root)

Isolation
      --network none|host      (default: none, with a loopback interface only)
      --pid host               share the host's processes; likewise --ipc host and --uts host
      --cgroupns private|host  (default: private)
      --cap-add CAP            give root inside a capability, or ALL; may be repeated
      --cap-drop CAP           take one away, or ALL; may be repeated
                               (default: docker run's, less CAP_MKNOD: that needs --cap-add or the rules of
                               --device-cgroup-rule, which keep it from the host's disks)
      --security-opt OPTION    may be repeated:
          seccomp=FILE         a profile of system calls, as Docker's; unconfined for none
                               (default: Docker's own, for the capabilities that there are)
          no-new-privileges[=true|false]
                               nothing that is executed gains rights (default: false, as docker run; landlock
                               brings it along)
          mask=PATH[:PATH]     hide paths, too; the default are docker run's, some of /proc and /sys
          unmask=PATH[:PATH]   show them, and let them be written to; patterns as /proc/*, or ALL
          systempaths=unconfined
                               the same as unmask=ALL
          apparmor=PROFILE     AppArmor profile, which must be loaded; unconfined leaves the caller's (default)
          label=type:TYPE      SELinux label: also level:LEVEL, user:USER, role:ROLE, may be repeated; or disable.
                               What is not given is the host's default for containers, with categories that no
                               other sandbox has (default: the caller's label, unless a volume has z or Z)
          landlock=RULE[,RULE] only these files: ro:PATH, rw:PATH, rx:PATH (read and execute); only these TCP
                               ports: bind:PORT, connect:PORT, or none; scope:signals and scope:sockets (abstract
                               Unix sockets) for what is outside; abi:N leaves alone what came after version N of
                               Landlock, without it an older kernel is an error. The command's own file and its
                               libraries count
      --privileged             all capabilities but those of --cap-drop, the host's devices, no masked or read-only
                               paths, /sys writable, no filter of system calls but that of --security-opt. As root
                               without --userns it may do anything to the host
      --ulimit NAME=SOFT[:HARD]
                               resource limit, such as nofile=1024; may be repeated

Network: --network also takes these; the first four need root and, for bridge, nf_tables or iptables
          bridge[:NAME]        a card on a bridge of the host's, which is made when it is not there (default:
                               caisson0), behind the host's address; allows forwarding on the host
          container:PID        the network of that process
          macvlan:PARENT       a card with an address of its own on the network of a device of the host's
          ipvlan:PARENT        the same with the device's hardware address
          pasta, slirp4netns   for ordinary users: these programs carry the sandbox's connections
      --bandwidth RATE         bytes in a second over the bridge's card, such as 10m; or in=RATE,out=RATE; also
                               latency=TIME that packets may wait for it, and a bad line's delay=TIME,jitter=TIME,
                               loss=PERCENT in each direction: 1m,delay=50ms
      --egress PEER[:PORT[-LAST][/tcp|udp|sctp]]
                               what the sandbox may connect to over the bridge, and nothing else: a name, *.NAME for
                               all below it, an address or a network, [IPv6]; may be repeated. Of names only these
                               are found, and no private addresses for them
  -p, --publish [ADDRESS:][PORT[-LAST]:]PORT[-LAST][/tcp|udp|sctp]
                               a port of the sandbox on the host; may be repeated
  -P, --publish-all            publish on free ports of the host what --expose and the image name (net-map shows
                               which); with --network bridge
      --expose PORT[-LAST][/tcp|udp|sctp]
                               what --publish-all publishes; alone it does nothing, as with docker run
      --ip ADDRESS[/BITS]      of the card, also --ip6 (default: the bridge's next free ones)
      --mac-address ADDRESS    (default: random)
      --dns ADDRESS            nameserver, also --dns-search, --dns-option; may be repeated (default: the host's, if
                               the sandbox can reach them)
      --add-host NAME:ADDRESS  line of /etc/hosts; may be repeated
                               /etc/resolv.conf, /etc/hosts and /etc/hostname are the sandbox's own; in the host's
                               own root those that are there

Resources: with any of these flags the command has a control group, which takes root or a delegated group
  -m, --memory SIZE            of all processes; above it they are killed (exit code 137)
      --memory-swap SIZE       memory and swap together, -1 for no limit of swap (default: twice --memory, on a
                               machine that has swap)
      --memory-reservation SIZE
                               memory that is taken back last
      --oom-kill-disable       processes wait for memory instead; version 1 of control groups only
      --cpus NUMBER            processors' worth of time, such as 1.5; or --cpu-quota and --cpu-period, in
                               microseconds (period: 100000)
      --cpu-shares NUMBER      2 to 262144 (normal: 1024)
      --cpuset-cpus LIST       processors, such as 0-3,6; likewise --cpuset-mems for memory nodes
      --pids-limit NUMBER      processes and threads; -1 for no limit
      --blkio-weight NUMBER    10 to 1000
      --device-read-bps DEVICE:SIZE
                               bytes in a second from a disk; likewise --device-write-bps, and with operations in a
                               second --device-read-iops, --device-write-iops
      --device-cgroup-rule RULE
                               may be used, too: "c 10:229 rwm", "b 8:* r". The command then has docker run's devices,
                               those of --device, and these; no others, whatever nodes there are. May be repeated
      --cgroup-parent PATH     the group is made below this one (default: the caller's own)

Execution
  -e, --env NAME[=VALUE]       without =VALUE it is the caller's own value
      --env-file FILE          lines NAME=VALUE, NAME, or # comment
  -i, --interactive            pass standard input on (default: /dev/null)
  -t, --tty                    give the command a terminal of its own
      --init                   run an init process that reaps orphans and forwards signals
      --rm                     for docker run's sake: nothing is ever kept
      --timeout DURATION       kill everything after 1m30s or the like
      --stats                  print on standard error, in the end, what was used: by all processes where there is a
                               control group
      --explain                print what would be done, system call by system call, and do nothing
      --help

The exit code is the command's; 128 and the signal that ended it, also with --timeout (137, and a line on standard
error; timeout(1) has 124), if memory ran out (137) or a filter ended it (159); 125 for errors of run itself, 126 if the command cannot be executed, 127 if it is not there.
Without --tty signals are passed on to the command. Without --init the command is process 1, which ignores those that
it has no handler for.
`
