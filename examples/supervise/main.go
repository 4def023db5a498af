//go:build linux

// Command supervise runs a command that may make directories below one directory, connect to some addresses, and neither of both
// elsewhere. It sees the host's files, read-only: the directories are made by the supervisor.
//
//	supervise -mkdir /srv/out -connect 127.0.0.1:8080 -- sh -c 'mkdir /srv/out/a && curl http://127.0.0.1:8080/'
//
// Both decisions depend on memory that the command can change at any time, so the supervisor never says "go on": it makes the call itself, with
// its own copy of the path or of the address.
//
// Every other way to the network is closed: TCP sockets are all there is, and connect(2) is the only way to connect one. The command may still listen.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/caps"
	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/namespaces"
	"github.com/caisson-dev/caisson/seccomp"
	"github.com/caisson-dev/caisson/seccomp/notify"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "supervise:", err)
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() > 0 {
			os.Exit(exit.ExitCode())
		}
		os.Exit(125)
	}
}

func run() error {
	s := supervisor{allowed: map[netip.AddrPort]bool{}}
	flag.Func("mkdir", "directory below which directories may be made", s.grant)
	flag.Func("connect", "address and port to which the command may connect; may be repeated", func(text string) error {
		a, err := netip.ParseAddrPort(text)
		s.allowed[a] = true
		return err
	})
	flag.Parse()
	if flag.NArg() == 0 {
		return errors.New("no command")
	}
	program, err := policy().Compile()
	if err != nil {
		return err
	}
	set := namespaces.Mount | namespaces.PID | namespaces.IPC
	if os.Geteuid() != 0 {
		set |= namespaces.User
	}
	sandbox := caisson.New(set, chroot.Host{}, chroot.Proc{}, chroot.Dev{}, chroot.Tmpfs{Path: "/tmp"}, caisson.DieWithParent{}, caps.Drop(caps.All),
		notify.Filter{Program: program, Handler: s.handle})
	cmd := sandbox.Command(flag.Arg(0), flag.Args()[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}

// policy asks about the calls that are answered, and closes the ways around them.
func policy() seccomp.Policy {
	const typeMask = 0xf // SOCK_TYPE_MASK; above it are SOCK_CLOEXEC and SOCK_NONBLOCK
	stream := seccomp.Arg(1).Masked(typeMask, unix.SOCK_STREAM)
	var sockets seccomp.Any
	for _, family := range []uint64{unix.AF_INET, unix.AF_INET6} {
		for _, protocol := range []uint64{0, unix.IPPROTO_TCP} { // SCTP connects by sendmsg
			sockets = append(sockets, seccomp.All{seccomp.Arg(0).Equal(family), stream, seccomp.Arg(2).Equal(protocol)})
		}
	}
	local := seccomp.All{seccomp.Arg(0).Equal(unix.AF_UNIX), stream}
	eacces := seccomp.Errno(unix.EACCES)
	return seccomp.Policy{Default: seccomp.Allow, Rules: []seccomp.Rule{
		{Names: []string{"mkdir", "mkdirat", "connect"}, Action: seccomp.Notify},
		{Names: []string{"socket"}, Action: seccomp.Allow, When: append(sockets, local)},
		{Names: []string{"socketpair"}, Action: seccomp.Allow, When: seccomp.Any{local}},
		{Names: []string{"socket", "socketpair"}, Action: eacces},
		// TCP Fast Open connects without connect(2).
		{Names: []string{"sendto"}, Action: eacces, When: seccomp.Any{{seccomp.Arg(3).HasAny(unix.MSG_FASTOPEN)}, {seccomp.Arg(4).NotEqual(0)}}},
		{Names: []string{"sendmsg"}, Action: eacces, When: seccomp.Any{{seccomp.Arg(2).HasAny(unix.MSG_FASTOPEN)}}},
		{Names: []string{"sendmmsg"}, Action: eacces, When: seccomp.Any{{seccomp.Arg(3).HasAny(unix.MSG_FASTOPEN)}}},
		// io_uring makes calls that no filter sees.
		{Names: []string{"io_uring_setup", "io_uring_enter", "io_uring_register"}, Action: seccomp.Errno(unix.ENOSYS)},
	}}
}
