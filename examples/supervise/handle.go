//go:build linux

package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/seccomp/notify"
)

// supervisor answers for one command.
type supervisor struct {
	name    string   // the directory below which directories may be made, as the command sees it
	dir     *os.File // the same; nil is none
	allowed map[netip.AddrPort]bool
}

func (s *supervisor) grant(name string) (err error) {
	if s.name, err = filepath.Abs(name); err != nil {
		return err
	}
	s.dir, err = os.Open(s.name)
	return err
}

func (s *supervisor) handle(ctx context.Context, r *notify.Request) notify.Response {
	switch r.Name() {
	case "mkdir":
		return s.mkdir(r, notify.Working, r.Args[0], r.Args[1])
	case "mkdirat":
		return s.mkdir(r, r.Args[0], r.Args[1], r.Args[2])
	case "connect":
		return s.connect(ctx, r)
	}
	return notify.Errno(unix.EPERM)
}

// mkdir makes the directory, if its name is below ours, by a walk that begins there and that no link leads away from.
func (s *supervisor) mkdir(r *notify.Request, dirfd, address, mode uint64) notify.Response {
	p, err := r.Path(dirfd, address)
	if err != nil {
		return notify.Result(0, err)
	}
	defer p.Close()
	name, err := p.Absolute()
	if err != nil {
		return notify.Result(0, err)
	}
	below, ok := strings.CutPrefix(filepath.Clean(name), s.name+"/")
	if s.dir == nil || !ok {
		fmt.Fprintf(os.Stderr, "supervise: mkdir %q is refused\n", name)
		return notify.Errno(unix.EACCES)
	}
	return notify.Result(0, s.make(below, uint32(mode)&0o777))
}

func (s *supervisor) make(below string, mode uint32) error {
	parent, last := filepath.Split(below)
	fd, err := unix.Openat2(int(s.dir.Fd()), "./"+parent, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Mkdirat(fd, last, mode)
}

// connect connects a copy of the command's socket to a copy of the address.
func (s *supervisor) connect(ctx context.Context, r *notify.Request) notify.Response {
	a, err := r.SockAddr(r.Args[1], r.Args[2])
	if err != nil {
		return notify.Result(0, err)
	}
	if !s.allowed[a.AddrPort] {
		fmt.Fprintf(os.Stderr, "supervise: connect to %v is refused\n", a)
		return notify.Errno(unix.EACCES)
	}
	socket, err := r.File(int(int32(r.Args[0])))
	if err != nil {
		return notify.Result(0, err)
	}
	defer socket.Close()
	return notify.Result(0, a.Connect(ctx, socket))
}
