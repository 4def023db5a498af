//go:build linux

package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	elastic "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"

	"github.com/caisson-dev/caisson/seccomp"
)

// actions are those that elastic/go-seccomp-bpf takes for a default.
var actions = []elastic.Action{elastic.ActionAllow, elastic.ActionErrno, elastic.ActionKillProcess, elastic.ActionKillThread, elastic.ActionLog,
	elastic.ActionTrap, elastic.ActionTrace}

// TestElastic compares random policies without conditions with elastic/go-seccomp-bpf's programs for them. Where conditions are in
// play that compiler is wrong, and for x86-64 alone it knows one architecture; so this is all that it is asked for.
//
// They differ by design in three places, which are made equal or left out: numbers above the known ones (Newer says here what theirs
// does), x32 (theirs answers ENOSYS; OtherArch says it here), and -1, a call that a tracer suppresses, which theirs takes for x32.
func TestElastic(t *testing.T) {
	names := known(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	calls := 0
	for range 200 {
		ours, theirs := randomPolicy(r, names)
		program, err := ours.Compile()
		if err != nil {
			t.Fatal(err)
		}
		code, err := theirs.Assemble()
		if err != nil {
			t.Fatal(err)
		}
		calls += compare(t, program.Instructions(), code, ours)
	}
	t.Logf("%d calls", calls)
}

// known are the names that both have, which must have the same numbers.
func known(t *testing.T) (names []string) {
	for name, nr := range arch.X86_64.SyscallNames {
		own, ok := seccomp.X86_64.Number(name)
		if !ok {
			t.Logf("%s is not in the table here", name)
			continue
		}
		if own != nr {
			t.Fatalf("%s is %d here and %d there", name, own, nr)
		}
		names = append(names, name)
	}
	if len(names) < 350 {
		t.Fatalf("%d names in common", len(names))
	}
	slices.Sort(names)
	return names
}

// randomPolicy is one policy in both forms: up to six rules, none of which names what another does.
func randomPolicy(r *rand.Rand, names []string) (seccomp.Policy, elastic.Policy) {
	fallback := actions[r.IntN(len(actions))]
	theirs := elastic.Policy{DefaultAction: fallback}
	ours := seccomp.Policy{Default: action(fallback), Newer: action(fallback), OtherArch: seccomp.Errno(syscall.ENOSYS), Arches: []seccomp.Arch{seccomp.X86_64}}
	left := slices.Clone(names)
	r.Shuffle(len(left), func(i, j int) { left[i], left[j] = left[j], left[i] })
	for range 1 + r.IntN(6) {
		n := 1 + r.IntN(1+len(left)/(1+r.IntN(20)))
		if n > len(left) {
			break
		}
		answer := actions[r.IntN(len(actions))]
		theirs.Syscalls = append(theirs.Syscalls, elastic.SyscallGroup{Names: left[:n], Action: answer})
		ours.Rules = append(ours.Rules, seccomp.Rule{Names: left[:n], Action: action(answer)})
		left = left[n:]
	}
	return ours, theirs
}

// action is theirs in our form: their errno is always EPERM.
func action(a elastic.Action) seccomp.Action {
	if a == elastic.ActionErrno {
		return seccomp.Errno(syscall.EPERM)
	}
	return seccomp.ActionOf(uint32(a))
}

// compare runs both programs for every number of x86-64, and for numbers around and far away.
func compare(t *testing.T, ours, theirs []bpf.Instruction, p seccomp.Policy) (n int) {
	t.Helper()
	us, err := bpf.NewVM(ours)
	if err != nil {
		t.Fatal(err)
	}
	them, err := bpf.NewVM(theirs)
	if err != nil {
		t.Fatal(err)
	}
	for _, nr := range numbers() {
		data := make([]byte, 64) // struct seccomp_data, in the machine's network order
		binary.BigEndian.PutUint32(data, nr)
		binary.BigEndian.PutUint32(data[4:], seccomp.X86_64.Token())
		a, err1 := us.Run(data)
		b, err2 := them.Run(data)
		if a != b || err1 != nil || err2 != nil {
			t.Fatalf("%s: %v here, %v there (%v, %v)\n%+v", call(nr), seccomp.ActionOf(uint32(a)), seccomp.ActionOf(uint32(b)), err1, err2, p)
		}
		n++
	}
	return n
}

func numbers() []uint32 {
	list := []uint32{0x3fffffff, 0x40000000, 0x40000001, 0x40000000 + 512, 0x7fffffff, 0x80000000, 0xfffffffe}
	for nr := range uint32(1024) {
		list = append(list, nr)
	}
	return list
}

func call(nr uint32) string {
	name, _ := seccomp.X86_64.Name(int(nr))
	return fmt.Sprintf("system call %d %s", nr, name)
}
