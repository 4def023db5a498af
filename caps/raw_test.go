package caps_test

import (
	"encoding/binary"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/caps"
	"github.com/caisson-dev/caisson/plan"
)

// onThread calls f on a thread that ends with it: not the first one, which would stay.
func onThread(f func()) {
	done := make(chan bool)
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			onThread(f)
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
}

// thread sets the three sets of the calling thread alone.
func thread(permitted, effective, inheritable caps.Set) error {
	data := [2]unix.CapUserData{{Effective: uint32(effective), Permitted: uint32(permitted), Inheritable: uint32(inheritable)},
		{Effective: uint32(effective >> 32), Permitted: uint32(permitted >> 32), Inheritable: uint32(inheritable >> 32)}}
	return unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0])
}

// inherit makes capabilities inheritable and ambient on the calling thread.
func inherit(s caps.Set) error {
	now, err := caps.Current()
	if err != nil {
		return err
	}
	if err := thread(now.Permitted, now.Effective, s); err != nil {
		return err
	}
	for n := range 64 {
		if s.Has(1 << n) {
			if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(n), 0, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// allowAll installs a filter that allows everything. It needs CAP_SYS_ADMIN or no_new_privs.
func allowAll() plan.Op {
	program := binary.NativeEndian.AppendUint16(nil, unix.BPF_RET|unix.BPF_K)
	program = binary.NativeEndian.AppendUint32(append(program, 0, 0), 0x7fff0000)
	size := int(unsafe.Sizeof(uintptr(0)))
	header := make([]byte, 2*size)
	binary.NativeEndian.PutUint16(header, 1)
	const setModeFilter = 1
	return plan.Call("seccomp", unix.SYS_SECCOMP, plan.Int(setModeFilter), plan.Int(0),
		plan.Struct("{1 instruction}", header, plan.Field{Offset: size, Arg: plan.Bytes("allow", program)}))
}

// bareCapset gives up all capabilities, and nothing more.
func bareCapset() plan.Primitive {
	header := binary.NativeEndian.AppendUint32(nil, unix.LINUX_CAPABILITY_VERSION_3)
	return plan.Func(func(p *plan.Plan) error {
		p.Child(plan.Capabilities, plan.Call("capset", unix.SYS_CAPSET, plan.Bytes("{3}", append(header, 0, 0, 0, 0)), plan.Bytes("{=}", make([]byte, 24))))
		return nil
	})
}
