//go:build linux

package vm

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Guest is the guest's init: it runs the job that lies in the initrd, and ends the machine. It must be called where [InGuest]
// says so, and nowhere else.
func Guest() {
	guest := guest
	if os.Getpid() != 1 {
		guest = serve
	}
	if err := guest(); err != nil {
		os.WriteFile("/dev/console", []byte("vm init: "+err.Error()+"\n"), 0)
	}
	unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) // with -no-reboot, qemu ends
}

func guest() error {
	if err := errors.Join(mount("proc", "/proc", "proc", 0, ""), mount("sys", "/sys", "sysfs", 0, ""),
		mount("dev", "/dev", "devtmpfs", 0, "")); err != nil {
		return err
	}
	if err := loadModules(); err != nil {
		return err
	}
	j, description, err := readJob("/job")
	if err != nil {
		return err
	}
	policy, err := os.ReadFile("/selinux.pol")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if j.Systemd {
		return errors.Join(j.enterRoot(), j.settle(), j.becomeSystemd(description))
	}
	port, err := openPort("events")
	if err != nil {
		return err
	}
	if err := errors.Join(j.enterRoot(), j.settle(), enforce(policy)); err != nil {
		return err
	}
	return j.run(json.NewEncoder(port))
}

// serve runs the job as a service of systemd.
func serve() error {
	j, _, err := readJob(handover + "/job")
	if err != nil {
		return err
	}
	port, err := openPort("events")
	if err != nil {
		return err
	}
	return j.run(json.NewEncoder(port))
}

func readJob(file string) (j job, description []byte, err error) {
	description, err = os.ReadFile(file)
	if err := errors.Join(err, json.Unmarshal(description, &j)); err != nil {
		return j, nil, fmt.Errorf("job: %w", err)
	}
	return j, description, nil
}

func loadModules() error {
	files, err := filepath.Glob("/modules/*")
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := loadModule(file); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}

func loadModule(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	flags := unix.MODULE_INIT_COMPRESSED_FILE
	if filepath.Ext(file) == ".ko" {
		flags = 0
	}
	return unix.FinitModule(int(f.Fd()), "", flags)
}

// openPort waits for a virtio port, because they come up in their own time.
func openPort(name string) (*os.File, error) {
	for range 500 {
		if device := findPort(name); device != "" {
			if f, err := os.OpenFile(device, os.O_WRONLY, 0); err == nil {
				return f, nil
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil, fmt.Errorf("virtio port %s: %w", name, os.ErrNotExist)
}

func findPort(name string) string {
	files, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
	for _, file := range files {
		if b, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(b)) == name {
			return "/dev/" + filepath.Base(filepath.Dir(file))
		}
	}
	return ""
}

// settle does what a distribution's boot would have done.
func (j job) settle() error {
	now := unix.NsecToTimeval(j.Time.UnixNano())
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	return errors.Join(
		unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo),
		unix.Settimeofday(&now),
		unix.Sethostname([]byte("vm")),
		// By package syscall, so that the Go runtime passes it on to commands. The numbers are systemd's.
		syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 1024, Max: 524288}),
	)
}

// enforce loads a compiled SELinux policy. It must go in one write.
func enforce(policy []byte) error {
	if policy == nil {
		return nil
	}
	for _, step := range []struct {
		file string
		data []byte
	}{{"/sys/fs/selinux/load", policy}, {"/sys/fs/selinux/enforce", []byte("1")}} {
		if err := os.WriteFile(step.file, step.data, 0); err != nil {
			return fmt.Errorf("SELinux: %w", err)
		}
	}
	if b, err := os.ReadFile("/sys/fs/selinux/enforce"); err != nil || string(b) != "1" {
		return fmt.Errorf("SELinux: enforce is %q, %w", b, err)
	}
	return nil
}

func mount(source, target, kind string, flags uintptr, data string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	return os.NewSyscallError("mount "+target, unix.Mount(source, target, kind, flags, data))
}
