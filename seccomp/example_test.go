package seccomp_test

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/seccomp"
)

// A command under Docker's default filter.
func ExampleDockerDefault() {
	sandbox := caisson.New(seccomp.DockerDefault("CAP_SYS_CHROOT"))
	fmt.Println(sandbox.Err())
	// Output: <nil>
}

// A list of what is forbidden: no mounts, and no input pushed into a terminal.
func ExamplePolicy() {
	program, err := seccomp.Policy{
		Default: seccomp.Allow,
		Arches:  []seccomp.Arch{seccomp.X86_64},
		Rules: []seccomp.Rule{
			{Names: []string{"@mount"}, Action: seccomp.Errno(syscall.EPERM)},
			{Names: []string{"ioctl"}, Action: seccomp.Errno(syscall.EPERM), When: seccomp.Arg(1).In(unix.TIOCSTI)},
		},
	}.Compile()
	if err != nil {
		fmt.Println(err)
		return
	}
	ioctl, _ := seccomp.X86_64.Number("ioctl")
	fmt.Println(program.Verdict(seccomp.X86_64, ioctl, 0, unix.TIOCSTI))
	fmt.Println(program.Verdict(seccomp.X86_64, ioctl, 0, unix.TIOCSTI|1<<32)) // the same to the kernel
	fmt.Println(program.Verdict(seccomp.X86_64, ioctl, 0, unix.TCGETS))
	// Output:
	// errno EPERM
	// errno EPERM
	// allow
}

// Why a call is refused.
func ExampleProgram_Explain() {
	p := seccomp.Untrusted()
	p.Arches = []seccomp.Arch{seccomp.X86_64}
	program, err := p.Compile()
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, name := range []string{"mount", "keyctl", "read"} {
		nr, _ := seccomp.X86_64.Number(name)
		fmt.Println(program.Explain(seccomp.X86_64, nr))
	}
	fmt.Println(program.Explain(seccomp.X86_64, 1000))
	fmt.Println(program.Explain(seccomp.I386, 20))
	// Output:
	// x86_64 mount: errno EPERM (default)
	// x86_64 keyctl: errno ENOSYS (rule 11: @io-uring bpf userfaultfd ...)
	// x86_64 read: allow (rule 12: @basic-io @file-system @io-event ...)
	// x86_64 system call 1000: errno ENOSYS (newer than all known calls)
	// i386 getpid: kill process (other architecture)
}

// The program in words.
func ExampleProgram_String() {
	program, err := seccomp.Policy{
		Default: seccomp.Allow, Newer: seccomp.Allow,
		Arches: []seccomp.Arch{seccomp.ARM64},
		Rules:  []seccomp.Rule{{Names: []string{"personality"}, Action: seccomp.Errno(syscall.EPERM), When: seccomp.Arg(0).In(8)}},
	}.Compile()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(program)
	// Output:
	//   0  load arch
	//   1  if == arm64 goto 3
	//   2  return kill process
	//   3  load number
	//   4  if == personality (92) goto 5 else 7
	//   5  load arg0.low
	//   6  if == 0x8 goto 8
	//   7  return allow
	//   8  return errno EPERM
}

// A profile of Docker's form, with the place of a mistake.
func ExampleParseProfile() {
	_, err := seccomp.ParseProfile([]byte(`{
		"defaultAction": "SCMP_ACT_ERRNO",
		"syscalls": [
			{"names": ["read"], "action": "SCMP_ACT_ALLOWED"}
		]
	}`))
	fmt.Println(err)
	// Output: line 4: syscalls[0].action: "SCMP_ACT_ALLOWED" is no action of a profile
}

// What a change of a policy changes.
func ExampleCompare() {
	before := seccomp.Policy{Default: seccomp.Allow, Arches: []seccomp.Arch{seccomp.X86_64}}
	after := before
	after.Rules = []seccomp.Rule{{Names: []string{"mkdir"}, Action: seccomp.Errno(syscall.EACCES)}}
	old, _ := before.Compile()
	changed, _ := after.Compile()
	for _, d := range seccomp.Compare(old, changed) {
		fmt.Println(d)
	}
	// Output: x86_64 mkdir(0x0, 0x0, 0x0, 0x0, 0x0, 0x0): allow, now errno EACCES
}

// A group's calls.
func ExampleGroup() {
	names, err := seccomp.Group("@keyring")
	fmt.Println(names, err)
	// Output: [add_key keyctl request_key] <nil>
}

// A filter of one's own process. It cannot be taken off again.
func ExampleFilter_Install() {
	f := seccomp.New(seccomp.Policy{Default: seccomp.Allow, Rules: []seccomp.Rule{
		{Names: []string{"@debug"}, Action: seccomp.Errno(syscall.EPERM)},
	}})
	if err := f.Install(); err != nil {
		fmt.Println(err)
	}
}
