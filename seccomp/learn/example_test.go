package learn_test

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/seccomp"
	"github.com/caisson-dev/caisson/seccomp/learn"
)

// The calls of a shell that prints a line.
func ExampleCalls() {
	var rec learn.Recorder
	if err := caisson.New(learn.Calls{Into: &rec}).Command("sh", "-c", "echo x").Run(); err != nil {
		fmt.Println(err)
	}
	names := rec.Profile().Names()
	fmt.Println(slices.Contains(names, "write"), slices.Contains(names, "mkdir"))
	// Output: true false
}

// The same for Docker: docker run --security-opt seccomp=FILE.
func ExampleProfile_OCI() {
	p := learn.Profile{{Arch: seccomp.X86_64, Name: "socket", Values: []uint64{2}}}
	oci, err := p.OCI(seccomp.KillProcess)
	if err != nil {
		panic(err)
	}
	text, _ := json.Marshal(oci.Syscalls[0])
	fmt.Println(oci.DefaultAction, string(text))
	// Output: SCMP_ACT_KILL_PROCESS {"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2,"op":"SCMP_CMP_EQ"}]}
}

// A policy in Go.
func ExampleProfile_Go() {
	p := learn.Profile{{Arch: seccomp.X86_64, Name: "personality", Values: []uint64{0}}}
	fmt.Println(p.Go(seccomp.KillProcess)[:14])
	// Output: seccomp.Policy
}

// Two runs together.
func ExampleMerge() {
	one := learn.Profile{{Arch: seccomp.X86_64, Name: "socket", Values: []uint64{2}}}
	two := learn.Profile{{Arch: seccomp.X86_64, Name: "socket", Values: []uint64{1}}, {Arch: seccomp.X86_64, Name: "read"}}
	for _, c := range learn.Merge(one, two) {
		fmt.Println(c.Arch, c.Name, c.Values)
	}
	// Output:
	// x86_64 read []
	// x86_64 socket [1 2]
}
