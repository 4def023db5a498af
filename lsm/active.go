//go:build linux

package lsm

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Module is a security module that the running kernel has enabled.
type Module struct {
	Name string // as in the lsm= of the kernel's command line: "apparmor"; "id 117" for one that this package does not know
	Mode Mode
}

// Mode says whether a module that has such a switch enforces.
type Mode uint8

// The modes.
const (
	NoMode      Mode = iota // the module has no such switch
	Unknown                 // it has, and the caller may not look, or the file system that tells is not mounted
	Enforcing               // for AppArmor: what each profile says
	Complaining             // denials are only logged: SELinux permissive, AppArmor complain
)

var modes = [...]string{"no mode", "unknown", "enforcing", "complaining"}

// String gives the mode in a word.
func (m Mode) String() string {
	if int(m) < len(modes) {
		return modes[m]
	}
	return fmt.Sprintf("mode %d", uint8(m))
}

// Modules are the enabled modules in the order in which they are asked.
type Modules []Module

// Has reports whether the module is among them.
func (m Modules) Has(name string) bool { return m.index(name) >= 0 }

func (m Modules) index(name string) int {
	return slices.IndexFunc(m, func(m Module) bool { return m.Name == name })
}

// Active asks the kernel which modules are enabled: by lsm_list_modules(2), Linux 6.8, or by the file lsm of securityfs. Where there is
// neither, the error is errors.ErrUnsupported: nothing else tells. No privilege is needed.
func Active() (Modules, error) { return here().active() }

func (h host) active() (Modules, error) {
	names, err := h.names()
	if err != nil {
		return nil, err
	}
	m := make(Modules, len(names))
	for i, name := range names {
		m[i] = Module{name, h.mode(name)}
	}
	return m, nil
}

func (h host) names() (names []string, err error) {
	ids, err := h.modules()
	switch {
	case err == nil:
		for _, id := range ids {
			names = append(names, moduleName(id))
		}
		return names, nil
	case !errors.Is(err, errors.ErrUnsupported):
		return nil, fail(err, "lsm_list_modules")
	}
	list, err := h.read("/sys/kernel/security", securityMagic, "lsm")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, unsupported("list the security modules", "neither lsm_list_modules(2) nor securityfs is there")
	}
	if err != nil {
		return nil, err
	}
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == '\n' }), nil
}

func (h host) mode(module string) Mode {
	switch module {
	case "selinux":
		return modeOf(h.read("/sys/fs/selinux", selinuxMagic, "enforce"))("1", "0")
	case "apparmor":
		return modeOf(h.read("/sys", sysfsMagic, "module/apparmor/parameters/mode"))("enforce", "complain")
	}
	return NoMode
}

func modeOf(value string, err error) func(enforcing, complaining string) Mode {
	return func(enforcing, complaining string) Mode {
		switch strings.TrimSpace(value) {
		case enforcing, "kill":
			return Enforcing
		case complaining:
			return Complaining
		}
		return Unknown
	}
}

// ids are the numbers of linux/lsm.h from 100 on.
var ids = [...]string{"capability", "selinux", "smack", "tomoyo", "apparmor", "yama", "loadpin", "safesetid", "lockdown", "bpf", "landlock",
	"ima", "evm", "ipe"}

const firstID = 100

func moduleName(id uint64) string {
	if id >= firstID && id-firstID < uint64(len(ids)) {
		return ids[id-firstID]
	}
	return fmt.Sprintf("id %d", id)
}

func listModules() ([]uint64, error) {
	list := make([]uint64, 64)
	size := uint32(len(list) * 8)
	n, _, e := unix.Syscall(unix.SYS_LSM_LIST_MODULES, uintptr(unsafe.Pointer(&list[0])), uintptr(unsafe.Pointer(&size)), 0)
	if e != 0 {
		return nil, e
	}
	return list[:n], nil
}
