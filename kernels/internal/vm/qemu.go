//go:build linux

package vm

import (
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// board is what differs between the architectures.
type board struct {
	arch       string // GOARCH
	emulator   string
	image      string // file in Machine.Kernel
	machine    []string
	parameters string
	elf        elf.Machine
}

func boards() []board {
	return []board{{
		arch: "amd64", emulator: "qemu-system-x86_64", image: "vmlinux", elf: elf.EM_X86_64,
		// A microvm has no firmware to wait for, and boots the plain vmlinux by PVH.
		machine:    []string{"-machine", "microvm", "-cpu", "max,la57=off", "-smp", "2"},
		parameters: "console=ttyS0 reboot=t random.trust_cpu=on",
	}, {
		arch: "arm64", emulator: "qemu-system-aarch64", image: "vmlinuz", elf: elf.EM_AARCH64,
		machine:    []string{"-machine", "virt", "-cpu", "cortex-a72", "-smp", "2"},
		parameters: "console=ttyAMA0",
	}}
}

func boardOf(kernel string) (board, error) {
	for _, b := range boards() {
		if _, err := os.Stat(filepath.Join(kernel, b.image)); err == nil {
			return b, nil
		}
	}
	return board{}, fmt.Errorf("%s is no kernel made by kernels/prepare.sh", kernel)
}

// Arch returns the GOARCH of a kernel made by kernels/prepare.sh.
func Arch(kernel string) (string, error) {
	b, err := boardOf(kernel)
	return b.arch, err
}

// Missing says what keeps the kernel from being booted here, nil if nothing does.
func Missing(kernel string) error {
	b, err := boardOf(kernel)
	if err != nil {
		return err
	}
	_, err = exec.LookPath(b.emulator)
	return err
}

// arguments returns qemu's command line. The events come out of qemu's descriptor 3.
func (m Machine) arguments(b board, initrd string) []string {
	args := append([]string{b.emulator, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		// thread=multi is faster and races with the kernel's patching of its own text: 6.12 crashed now and then.
		"-accel", "tcg,thread=single", "-m", "1024"}, b.machine...)
	args = append(args, "-kernel", filepath.Join(m.Kernel, b.image), "-initrd", initrd, "-append", m.parameters(b),
		"-serial", "stdio", "-device", "virtio-serial-device",
		"-chardev", "file,id=events,path=/proc/self/fd/3", "-device", "virtserialport,chardev=events,name=events")
	args = append(args, share("root", "/", ",readonly=on,multidevs=remap")...)
	if m.Work != "" {
		args = append(args, share("work", m.Work, "")...)
	}
	return args
}

// share exports a directory of the host to the guest by 9p, under a tag. A comma ends an option of qemu's unless doubled.
func share(tag, dir, options string) []string {
	path := strings.ReplaceAll(dir, ",", ",,")
	return []string{
		"-fsdev", "local,security_model=none,id=" + tag + ",path=" + path + options,
		"-device", "virtio-9p-device,fsdev=" + tag + ",mount_tag=" + tag,
	}
}

// parameters returns the kernel's command line. Most of it saves boot time under emulation.
func (m Machine) parameters(b board) string {
	// panic=-1 with -no-reboot ends qemu when the kernel panics.
	p := []string{"quiet panic=-1 mitigations=off nokaslr cryptomgr.notests=1 init_on_alloc=0", b.parameters}
	if b.arch == "amd64" {
		p = append(p, timeStampCounter())
	}
	if m.SELinux != "" {
		// Debian's kernels have no selinux= parameter, and prefer AppArmor.
		p = append(p, "lsm=landlock,lockdown,yama,selinux,bpf enforcing=1")
	}
	return strings.Join(append(p, m.Append), " ")
}

// timeStampCounter tells the guest the frequency of the host's counter, which it sees. The microvm has neither HPET nor PM
// timer to measure it by: without this the guest at times fails to calibrate, and hangs.
func timeStampCounter() string {
	log := make([]byte, 1<<20)
	n, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, log)
	if err != nil { // an ordinary user may not read the kernel's log
		n = 0
	}
	cpu, _ := os.ReadFile("/proc/cpuinfo")
	m := regexp.MustCompile(`(?:tsc: Detected |cpu MHz\s*: )(\d+)\.(\d{3})`).FindSubmatch(append(log[:n], cpu...))
	if m == nil {
		return ""
	}
	return fmt.Sprintf("tsc_early_khz=%s%s", m[1], m[2])
}

// checkInit finds the mistakes that the guest could only report as a kernel panic.
func (b board) checkInit(file string) error {
	f, err := elf.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if f.Machine != b.elf {
		return fmt.Errorf("%s is a program for %v, the kernel is for %v", file, f.Machine, b.elf)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s is linked dynamically; build it with CGO_ENABLED=0", file)
		}
	}
	return nil
}
