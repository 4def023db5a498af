package notify_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/plan"
	"github.com/caisson-dev/caisson/seccomp"
	"github.com/caisson-dev/caisson/seccomp/notify"
)

// asking is a program that allows everything but the calls, about which it asks.
func asking(calls ...string) *seccomp.Program {
	p, err := seccomp.Policy{Default: seccomp.Allow, Rules: []seccomp.Rule{{Names: calls, Action: seccomp.Notify}}}.Compile()
	if err != nil {
		panic(err)
	}
	return p
}

// The command believes that it is on another machine.
func ExampleFilter() {
	sb := caisson.New(notify.Filter{
		Program: asking("sethostname"),
		Handler: func(_ context.Context, r *notify.Request) notify.Response {
			name := make([]byte, r.Args[1])
			if err := r.Read(name, r.Args[0]); err != nil {
				return notify.Result(0, err)
			}
			fmt.Printf("%s: would like to be %s\n", r.Name(), name)
			return notify.Return(0) // nothing was done
		},
	})
	cmd := sb.Command("sh", "-c", "hostname elsewhere")
	cmd.Stderr = os.Stderr
	fmt.Println(cmd.Run())
	// Output:
	// sethostname: would like to be elsewhere
	// <nil>
}

// The result names the call for which the command was killed.
func ExampleFilter_reportKills() {
	program, err := seccomp.Policy{Default: seccomp.Allow, Rules: []seccomp.Rule{{Names: []string{"sethostname"}, Action: seccomp.KillProcess}}}.Compile()
	if err != nil {
		panic(err)
	}
	cmd := caisson.New(notify.Filter{Program: program, ReportKills: true}).Command("hostname", "elsewhere")
	cmd.Run()
	result := cmd.Result()
	call, _, _ := strings.Cut(result.Syscall, "(")
	fmt.Println(result.Reason == plan.Filtered, result.Signal, strings.Fields(call)[1])
	// Output: true killed sethostname
}

// One supervisor for any number of sandboxes.
func ExampleSupervisor() {
	s, err := notify.NewSupervisor(notify.Handlers{})
	if err != nil {
		panic(err)
	}
	defer s.Close()
	sb := caisson.New(notify.Filter{Program: asking("sethostname"), Supervisor: s,
		Handler: func(context.Context, *notify.Request) notify.Response { return notify.Errno(syscall.EPERM) }})
	for range 3 {
		fmt.Println(sb.Command("hostname", "elsewhere").Run())
	}
	// Output:
	// exit status 1
	// exit status 1
	// exit status 1
}
