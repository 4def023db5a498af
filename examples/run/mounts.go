//go:build linux

package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/plan"
)

// root is the sandbox's root directory. The host's own is always read-only.
func (f *flags) root() plan.Primitive {
	switch {
	case f.layered():
		return f.stack()
	case f.rootfs == "":
		return chroot.Host{}
	}
	return chroot.Pivot{Dir: f.rootfs, ReadOnly: f.readOnly}
}

// mount is something mounted at a path of the sandbox.
type mount struct {
	at   string
	part plan.Primitive
}

// mounts gives all of them, parents before what is below them.
func (f *flags) mounts(host string) ([]plan.Primitive, error) {
	all, err := f.asked()
	if err != nil {
		return nil, err
	}
	files, err := f.files(host)
	if err != nil {
		return nil, err
	}
	for _, d := range slices.Concat(f.defaults(), f.sys(all), files) {
		if !slices.ContainsFunc(all, func(m mount) bool { return m.at == d.at }) {
			all = append(all, d)
		}
	}
	slices.SortStableFunc(all, func(a, b mount) int { return cmp.Compare(strings.Count(a.at, "/"), strings.Count(b.at, "/")) })
	parts := []plan.Primitive{f.proc(), chroot.Dev{ShmSize: f.shmSize, Mqueue: f.ipc != "host"}}
	for _, m := range all {
		parts = append(parts, m.part)
	}
	return append(parts, f.paths()...), nil
}

// asked are the mounts of the command line.
func (f *flags) asked() (all []mount, err error) {
	for _, v := range f.volumes {
		all = append(all, mount{v.Target, v.Bind})
	}
	for _, t := range f.tmpfs {
		all = append(all, mount{t.Path, t})
	}
	for _, d := range f.devices {
		all = append(all, mount{d.Target, d.Device})
	}
	for i, m := range all {
		if slices.ContainsFunc(all[:i], func(o mount) bool { return o.at == m.at }) {
			return nil, fmt.Errorf("two mounts at %s", m.at)
		}
	}
	return all, nil
}

// defaults are the mounts that nobody has to ask for.
func (f *flags) defaults() (all []mount) {
	if f.privileged {
		all = hostDevices()
	}
	if f.ipc == "host" {
		all = append(all, bind("/dev/shm"))
	}
	if f.ownRoot() {
		return all
	}
	all = append(all, mount{"/tmp", chroot.Tmpfs{Path: "/tmp"}})
	if st, err := os.Stat("/run"); err != nil || !st.IsDir() {
		return all
	}
	// In /run are the sockets of the host's daemons. A read-only file system would not keep anyone from using them.
	all = append(all, mount{"/run", chroot.Tmpfs{Path: "/run", Mode: 0o755}})
	if f.network.kind == "host" {
		all = append(all, resolver()...)
	}
	return all
}

// resolver: with systemd /etc/resolv.conf is a link into /run.
func resolver() []mount {
	file, err := filepath.EvalSymlinks("/etc/resolv.conf")
	if err != nil || !strings.HasPrefix(file, "/run/") {
		return nil
	}
	return []mount{bind(file)}
}

// bind shows a path of the host under its own name.
func bind(name string) mount { return mount{name, chroot.Bind{Source: name, Target: name}} }

// proc: the processes of the host are in the host's /proc only. An ordinary user could not mount another one.
func (f *flags) proc() plan.Primitive {
	if f.pid == "host" {
		return chroot.Bind{Source: "/proc", Target: "/proc"}
	}
	return chroot.Proc{}
}
