//go:build linux

// Vmrun runs one command as root in a virtual machine with another kernel, with the host's files. It is made for
// go test -exec, and is the init of the machine, too:
//
//	kernels/prepare.sh
//	go build -o /tmp/vmrun ./kernels/vmrun
//	VMRUN_KERNEL=6.12 go test -count=1 -exec /tmp/vmrun ./plan
//	VMRUN_KERNEL=6.1 VMRUN_SELINUX=selinux.pol go test -count=1 -exec /tmp/vmrun -run TestLabel -v ./lsm
//	VMRUN_KERNEL=6.12 VMRUN_SYSTEMD=systemd go test -count=1 -exec /tmp/vmrun -run Booted -v ./cgroups
//	VMRUN_KERNEL=arm64 GOARCH=arm64 go test -count=1 -exec /tmp/vmrun ./plan
//
// It takes its settings from the environment:
//
//	VMRUN_KERNEL   the kernel: a directory, or a name without slash in the directory that kernels/prepare.sh fills
//	VMRUN_SELINUX  a compiled SELinux policy to enforce, likewise
//	VMRUN_SYSTEMD  a user land whose systemd becomes process 1, likewise
//	VMRUN_APPEND   more parameters for the kernel
//	VMRUN_TIMEOUT  time for all, 5m by default
//
// Say -count=1, because go test does not know that the result depends on a kernel. The exit status is the command's, or
// 125 where there is none.
package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/caisson-dev/caisson/kernels/internal/vm"
)

func main() {
	if vm.InGuest() {
		vm.Guest()
	}
	code, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "vmrun:", err)
	}
	os.Exit(code)
}

func run() (int, error) {
	if len(os.Args) < 2 {
		return 2, fmt.Errorf("want a command")
	}
	command, err := command()
	if err != nil {
		return 125, err
	}
	tmp, err := os.MkdirTemp("", "vmrun")
	if err != nil {
		return 125, err
	}
	defer os.RemoveAll(tmp)
	m, err := machine(command, tmp)
	if err != nil {
		return 125, err
	}
	code := 125
	err = m.Run(context.Background(), []vm.Command{command}, func(e vm.Event) {
		os.Stdout.Write(e.Output)
		if e.Exit != nil {
			code = e.Exit.Code
			for _, left := range e.Exit.Left {
				fmt.Fprintln(os.Stderr, "vmrun: left behind:", left)
			}
		}
	})
	return code, err
}

func command() (vm.Command, error) {
	path, err := exec.LookPath(os.Args[1])
	if err != nil {
		return vm.Command{}, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return vm.Command{}, err
	}
	dir, err := os.Getwd()
	return vm.Command{Args: append([]string{path}, os.Args[2:]...), Env: vm.Env(), Dir: dir}, err
}

func machine(c vm.Command, tmp string) (vm.Machine, error) {
	kernel, err := vm.Find(os.Getenv("VMRUN_KERNEL"))
	if err != nil {
		return vm.Machine{}, fmt.Errorf("VMRUN_KERNEL: %w", err)
	}
	m := vm.Machine{Kernel: kernel, Append: os.Getenv("VMRUN_APPEND")}
	if name := os.Getenv("VMRUN_SELINUX"); name != "" {
		if m.SELinux, err = vm.Find(name); err != nil {
			return vm.Machine{}, err
		}
	}
	if name := os.Getenv("VMRUN_SYSTEMD"); name != "" {
		if m.Systemd, err = vm.Find(name); err != nil {
			return vm.Machine{}, err
		}
	}
	if m.Timeout, err = time.ParseDuration(cmp.Or(os.Getenv("VMRUN_TIMEOUT"), "5m")); err != nil {
		return vm.Machine{}, err
	}
	binaries := filepath.Dir(c.Args[0])
	m.Show = []string{module(c.Dir), binaries}
	// What go test reads afterwards: coverage and the log of what a test depends on.
	if strings.Contains(binaries, "/go-build") {
		m.Work = binaries
	}
	m.Init, err = initFor(kernel, tmp)
	return m, err
}

// module returns the root of the module that dir is in, so that tests find their neighbours' testdata.
func module(dir string) string {
	for d := dir; d != "/"; d = filepath.Dir(d) {
		if _, err := os.Stat(d + "/go.mod"); err == nil {
			return d
		}
	}
	return dir
}

// initFor returns a program like this one for the kernel's architecture.
func initFor(kernel, tmp string) (string, error) {
	arch, err := vm.Arch(kernel)
	if err != nil || arch == runtime.GOARCH {
		return "", err
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "", fmt.Errorf("built without build information, and so cannot be built again for %s", arch)
	}
	return vm.BuildInit(info.Path, arch, tmp)
}
