package seccomp

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestOtherABIs makes calls by int 0x80 and with numbers of x32: they are never answered as those of x86-64.
func TestOtherABIs(t *testing.T) {
	if state, out := child(t, "int 0x80"); !state.Success() {
		t.Skip("this kernel has no int 0x80: ", state, out)
	}
	t.Run("that the policy does not know", func(t *testing.T) { good(t, "other abis") })
	t.Run("that the policy knows", func(t *testing.T) { good(t, "abis of the policy") })
	t.Run("under Docker's default", func(t *testing.T) { good(t, "docker abis") })
}

// int80 makes a call of i386 with whole registers, by a few instructions in memory of their own.
func int80(nr, a, b, c uint64) (int64, error) {
	page, err := unix.Mmap(-1, 0, 8192, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return 0, err
	}
	defer unix.Munmap(page)
	for i, v := range []uint64{nr, a, b, c} {
		binary.LittleEndian.PutUint64(page[4096+8*i:], v)
	}
	block := uint64(uintptr(unsafe.Pointer(&page[4096])))
	code := append([]byte{0x48, 0xbf}, binary.LittleEndian.AppendUint64(nil, block)...) // mov rdi, block
	code = append(code,
		0x48, 0x8b, 0x07, // mov rax, [rdi]
		0x48, 0x8b, 0x5f, 0x08, // mov rbx, [rdi+8]
		0x48, 0x8b, 0x4f, 0x10, // mov rcx, [rdi+16]
		0x48, 0x8b, 0x57, 0x18, // mov rdx, [rdi+24]
		0x57,       // push rdi
		0xcd, 0x80, // int 0x80
		0x5f,             // pop rdi
		0x48, 0x89, 0x07, // mov [rdi], rax
		0xc3) // ret
	copy(page, code)
	entry := uintptr(unsafe.Pointer(&page[0]))
	f := &entry
	(*(*func())(unsafe.Pointer(&f)))()
	runtime.KeepAlive(f)
	return int64(int32(binary.LittleEndian.Uint64(page[4096:]))), nil
}

func i386(name string) uint64 {
	nr, _ := I386.Number(name)
	return uint64(nr)
}

func interrupt() error {
	n, err := int80(i386("getpid"), 0, 0, 0)
	if err == nil && n != int64(syscall.Getpid()) {
		err = fmt.Errorf("getpid by int 0x80: %d", n)
	}
	return err
}

// x32 makes a call with a number of x32.
func x32(name string, args ...uintptr) syscall.Errno {
	nr, _ := X32.Number(name)
	var a [3]uintptr
	copy(a[:], args)
	_, _, e := unix.RawSyscall(uintptr(nr), a[0], a[1], a[2])
	return e
}

func expect(what string, got int64, err error, want int64) error {
	if err == nil && got != want {
		err = fmt.Errorf("%s: %d, not %d", what, got, want)
	}
	return err
}

// otherABIs: getpid of i386 has the number of writev on x86-64.
func otherABIs() error {
	p := only()
	p.Arches, p.OtherArch = []Arch{X86_64}, Errno(77)
	if err := New(p).InstallThread(); err != nil {
		return err
	}
	n, err := int80(i386("getpid"), 0, 0, 0)
	if err := expect("getpid of i386", n, err, -77); err != nil {
		return err
	}
	if e := x32("getpid"); e != 77 {
		return fmt.Errorf("getpid of x32: %v", e)
	}
	if e := raw("getpid"); e != 0 {
		return fmt.Errorf("getpid: %v", e)
	}
	return nil
}

// ownABIs: each architecture has its own numbers and rules. With int 0x80 the upper halves of registers reach the filter, and not the call.
func ownABIs() error {
	const garbage = 0xdead << 32
	p := only(
		Rule{Names: []string{"getpid"}, Action: Errno(98), Arches: []Arch{I386}},
		Rule{Names: []string{"getpid"}, Action: Errno(99), Arches: []Arch{X32}},
		Rule{Names: []string{"getpgid"}, Action: Errno(97), When: Arg(0).In(7)},
		Rule{Names: []string{"getsid"}, Action: Errno(96), When: Any{{Arg(0).Equal(7).As(Full64)}}},
		Rule{Names: []string{"mmap2"}, Action: Errno(95), When: Any{{Arg(1).Equal(12345)}}},
	)
	if err := New(p).InstallThread(); err != nil {
		return err
	}
	for _, c := range []struct {
		what     string
		nr, a, b uint64
		want     int64
	}{
		{"getpid", i386("getpid"), 0, 0, -98}, {"getpgid(7)", i386("getpgid"), 7, 0, -97}, {"getpgid(7 + garbage)", i386("getpgid"), 7 | garbage, 0, -97},
		{"mmap2 of a certain length", i386("mmap2"), 0, 12345 | garbage, -95},
	} {
		n, err := int80(c.nr, c.a, c.b, 0)
		if err := expect(c.what, n, err, c.want); err != nil {
			return err
		}
	}
	if n, err := int80(i386("getsid"), 7|garbage, 0, 0); err != nil || n == -96 {
		return fmt.Errorf("the kernel has cut the upper half off before the filter saw it: %v", err)
	}
	if e := x32("getpid"); e != 99 {
		return fmt.Errorf("getpid of x32: %v", e)
	}
	return nil
}

func dockerABIs() error {
	if err := DockerDefault().InstallThread(); err != nil {
		return err
	}
	n, err := int80(i386("getpid"), 0, 0, 0)
	if err := expect("getpid", n, err, int64(syscall.Getpid())); err != nil {
		return err
	}
	for name, want := range map[string]syscall.Errno{"mount": syscall.EPERM, "unshare": syscall.EPERM, "clone3": syscall.ENOSYS, "keyctl": syscall.EPERM} {
		n, err := int80(i386(name), 0, 0, 0)
		if err := expect(name, n, err, -int64(want)); err != nil {
			return err
		}
		if e := x32(name); e != want {
			return fmt.Errorf("%s of x32: %v", name, e)
		}
	}
	return nil
}
