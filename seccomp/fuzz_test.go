package seccomp

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"
)

// FuzzProfile: no text is a panic; an error says that the text is wrong; what is read can be written and read again, and compiled.
func FuzzProfile(f *testing.F) {
	docker, _ := json.Marshal(DockerProfile())
	f.Add(docker)
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_KILL","syscalls":[{"name":"clone","action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_MASKED_EQ"}]}]}`))
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["x"],"action":"SCMP_ACT_ERRNO","errnoRet":1,"includes":{"minKernel":"4.8","caps":["X"]}}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := ParseProfile(text)
		if err != nil {
			if e := new(FieldError); !errors.As(err, &e) || !errors.Is(err, syscall.EINVAL) || e.Line < 1 {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		again, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseProfile(again); err != nil {
			t.Fatalf("%v\n%s", err, again)
		}
		target := Target{Arch: X86_64, Kernel: [2]int{6, 1}, Caps: []string{"SYS_ADMIN"}}
		q, err := p.Policy(target)
		if err != nil {
			return
		}
		program, err := q.Compile()
		if err != nil {
			if !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.E2BIG) {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		r := rand.New(rand.NewPCG(1, 1))
		for range 50 {
			var args [6]uint64
			for i := range args {
				args[i] = randomValue(r)
			}
			nr := r.IntN(500)
			if got, want := program.Verdict(X86_64, nr, args[:]...), program.Explain(X86_64, nr, args[:]...); got != want.Answer {
				t.Fatalf("%d %#x: the program says %v, the policy %v", nr, args, got, want)
			}
		}
	})
}

// FuzzNames: what the parsers of names read, they read again from what is printed.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"@mount", "read", "SCMP_ARCH_X86", "amd64", "x32", "errno EPERM", "errno 77", "trap 3", "kill process", "SECCOMP_FILTER_FLAG_LOG|SECCOMP_FILTER_FLAG_TSYNC", "cap_sys_admin", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if a, err := ParseArch(s); err == nil {
			if b, err := ParseArch(a.String()); err != nil || a != b {
				t.Errorf("%v %v", a, b)
			}
		} else if !errors.Is(err, syscall.EINVAL) {
			t.Error(err)
		}
		if a, err := ParseAction(s); err == nil {
			if b, err := ParseAction(a.String()); err != nil || a != b || a.check() != nil {
				t.Errorf("%q %v %v", s, a, b)
			}
		}
		if a, err := ParseFlags(s); err == nil && a != 0 {
			if b, err := ParseFlags(a.String()); err != nil || a != b {
				t.Errorf("%v %v", a, b)
			}
		}
		if c, err := capability(s); err == nil {
			if d, err := capability(c); err != nil || c != d {
				t.Errorf("%q %q", c, d)
			}
		}
		list, err := Group(s)
		if (err == nil) != (len(list) > 0) {
			t.Errorf("%q: %v, %v", s, list, err)
		}
		for _, name := range list {
			if _, ok := findCall(name); !ok {
				t.Errorf("%q is no call", name)
			}
		}
	})
}

// FuzzPolicy: random policies, seen from the fuzzer's numbers, are compiled to what they say.
func FuzzPolicy(f *testing.F) {
	f.Add(uint64(1), uint64(2))
	f.Add(uint64(0), uint64(99))
	f.Fuzz(func(t *testing.T, a, b uint64) {
		r := rand.New(rand.NewPCG(a, b))
		p := randomPolicy(r)
		program, err := p.Compile()
		if err != nil {
			if !errors.Is(err, syscall.EINVAL) {
				t.Fatal(err)
			}
			return
		}
		compareNaive(t, r, p, program, 40)
		if d := Compare(program, program); len(d) > 0 {
			t.Fatal(d)
		}
		if len(program.String()) == 0 {
			t.Fatal("no disassembly")
		}
	})
}
