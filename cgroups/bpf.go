//go:build linux

package cgroups

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// attachDevices has a program decide on each use of a device in the group (BPF_CGROUP_DEVICE, Linux 4.15). The group keeps the
// program; all programs of the group and of those above it must allow, so those attached by us before go only after the new one has come.
func (d *dir) attachDevices(rules []Device) error {
	fd, err := d.kernel.open(d.fd(), ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return d.failed("open", "", "", err)
	}
	defer unix.Close(fd)
	if err := attachDevices(fd, rules); err != nil {
		return &Error{Op: "refuse devices", Group: d.String(), Controller: "devices", Err: err, Hint: hintBPF(err)}
	}
	return nil
}

func hintBPF(err error) string {
	if errors.Is(err, unix.EPERM) {
		return "needs CAP_BPF and CAP_NET_ADMIN, or root"
	}
	return ""
}

const programName = "caisson_devices"

func attachDevices(fd int, rules []Device) error {
	before, err := attached(fd)
	if err != nil {
		return err
	}
	defer closePrograms(before)
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: programName, Type: ebpf.CGroupDevice, Instructions: devicesProgram(rules), License: "Apache"})
	if err != nil {
		return err
	}
	defer p.Close()
	err = link.RawAttachProgram(link.RawAttachProgramOptions{Target: fd, Program: p, Attach: ebpf.AttachCGroupDevice, Flags: unix.BPF_F_ALLOW_MULTI})
	for _, old := range before {
		if err == nil {
			err = link.RawDetachProgram(link.RawDetachProgramOptions{Target: fd, Program: old, Attach: ebpf.AttachCGroupDevice})
		}
	}
	return err
}

func closePrograms(all []*ebpf.Program) {
	for _, p := range all {
		p.Close()
	}
}

// attached gives our programs of the group.
func attached(fd int) ([]*ebpf.Program, error) {
	found, err := link.QueryPrograms(link.QueryOptions{Target: fd, Attach: ebpf.AttachCGroupDevice})
	if err != nil {
		return nil, err
	}
	var ours []*ebpf.Program
	for _, f := range found.Programs {
		p, err := ebpf.NewProgramFromID(f.ID)
		if err != nil {
			closePrograms(ours)
			return nil, err
		}
		if info, err := p.Info(); err == nil && info.Name == programName {
			ours = append(ours, p)
		} else {
			p.Close()
		}
	}
	return ours, nil
}

const accessAll = accessMknod | accessRead | accessWrite

// The registers of the program.
const (
	kind    = asm.R2
	left    = asm.R3
	major   = asm.R4
	minor   = asm.R5
	scratch = asm.R6
)

// devicesProgram compiles the rules. The context holds the kind of device in the lower half of a word and the access in the upper, then the
// numbers. The last rule that speaks of a bit of the access decides on it; what no rule speaks of is refused. Going
// through the rules from the last, the program takes away the bits that are allowed, and is done when none is left.
func devicesProgram(rules []Device) asm.Instructions {
	code := asm.Instructions{
		asm.LoadMem(kind, asm.R1, 0, asm.Word),
		asm.Mov.Reg32(left, kind),
		asm.And.Imm32(kind, 0xffff),
		asm.RSh.Imm32(left, 16),
		asm.LoadMem(major, asm.R1, 4, asm.Word),
		asm.LoadMem(minor, asm.R1, 8, asm.Word),
	}
	for i, r := range slices.Backward(rules) {
		block := r.compile(label(i - 1))
		block[0] = block[0].WithSymbol(label(i))
		code = append(code, block...)
	}
	code = append(code, asm.Mov.Imm(asm.R0, 0).WithSymbol("refuse"), asm.Return())
	if slices.ContainsFunc(rules, func(r Device) bool { return !r.Deny }) { // the verifier refuses what cannot be reached
		code = append(code, asm.Mov.Imm(asm.R0, 1).WithSymbol("allow"), asm.Return())
	}
	return code
}

func label(i int) string {
	if i < 0 {
		return "refuse"
	}
	return fmt.Sprintf("rule%d", i)
}

// compile gives one rule, which goes on to the next where it does not speak of the device.
func (d Device) compile(next string) (code asm.Instructions) {
	switch d.Kind {
	case 'b':
		code = append(code, asm.JNE.Imm32(kind, unix.BPF_DEVCG_DEV_BLOCK, next))
	case 'c':
		code = append(code, asm.JNE.Imm32(kind, unix.BPF_DEVCG_DEV_CHAR, next))
	}
	if d.Major != Any {
		code = append(code, asm.JNE.Imm32(major, int32(uint32(d.Major)), next))
	}
	if d.Minor != Any {
		code = append(code, asm.JNE.Imm32(minor, int32(uint32(d.Minor)), next))
	}
	if d.Deny {
		return append(code, asm.Mov.Reg32(scratch, left), asm.And.Imm32(scratch, int32(d.bits())), asm.JNE.Imm32(scratch, 0, "refuse"))
	}
	return append(code, asm.And.Imm32(left, int32(accessAll&^d.bits())), asm.JEq.Imm32(left, 0, "allow"))
}
