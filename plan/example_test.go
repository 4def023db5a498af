package plan_test

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// hostname is a primitive in five lines.
type hostname string

func (h hostname) Apply(p *plan.Plan) error {
	p.Clone(unix.CLONE_NEWUTS)
	p.Child(plan.Names, plan.Call("sethostname", unix.SYS_SETHOSTNAME, plan.Str(string(h)), plan.Int(len(h))))
	return p.Claim(plan.Hostname)
}

func ExamplePrimitive() {
	for line := range strings.Lines(plan.Build(hostname("box")).String()) {
		if strings.Contains(line, "hostname") {
			fmt.Println(strings.Join(strings.Fields(line)[1:], " "))
		}
	}
	fmt.Println(plan.Build(hostname("a"), hostname("b")).Err())
	// Output:
	// child sethostname("box", 3) # plan_test.hostname
	// caisson: plan_test.hostname: the hostname is given twice by plan_test.hostname
}

// A result is saved in a slot and used by a later call; an errno is tolerated, and what depends on the call skipped.
func ExampleOp() {
	p := plan.Build(plan.Func(func(p *plan.Plan) error {
		dir := p.Slot()
		p.Child(plan.Sources,
			plan.Call("open", unix.SYS_OPENAT, plan.Number(^uint64(99), "AT_FDCWD"), plan.Str("/opt"), plan.Number(unix.O_PATH, "O_PATH")).
				Save(dir).Tolerate(unix.ENOENT).Skip(1),
			plan.Call("fchdir", unix.SYS_FCHDIR, plan.Saved(dir)))
		return nil
	}))
	for _, s := range p.Steps(nil) {
		if s.Primitive == "plan.Func" {
			fmt.Println(s)
		}
	}
	// Output:
	// $0 = open(AT_FDCWD, "/opt", O_PATH) or ENOENT, then skip 1
	// fchdir($0)
}

func ExampleFlags() {
	table := []plan.Flag{{Bits: unix.MS_RDONLY, Name: "MS_RDONLY"}, {Bits: unix.MS_NOSUID, Name: "MS_NOSUID"}}
	fmt.Println(plan.Flags(unix.MS_RDONLY|unix.MS_NODEV, table))
	// Output: MS_RDONLY|0x4
}
