package caisson_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/plan"
)

// Without parts a sandbox isolates nothing: Command is then os/exec's.
func ExampleNew() {
	out, err := caisson.New().Command("echo", "hello").Output()
	fmt.Printf("%s%v\n", out, err)
	// Output:
	// hello
	// <nil>
}

// With gives another sandbox; the one that it was called on stays as it is.
func ExampleSandbox_With() {
	base := caisson.New(caisson.Umask(0o027))
	limited := base.With(caisson.Rlimit{Resource: caisson.RlimitFSize, Soft: 1 << 20, Hard: 1 << 20})
	fmt.Println(strings.Contains(base.Plan().String(), "RLIMIT_FSIZE"), strings.Contains(limited.Plan().String(), "RLIMIT_FSIZE"))
	// Output: false true
}

// Two parts that provide the same thing are a conflict, found before anything is done.
func ExampleSandbox_Err() {
	sb := caisson.New(caisson.Umask(0o022), caisson.Umask(0o077))
	var conflict *plan.ConflictError
	fmt.Println(errors.As(sb.Err(), &conflict))
	fmt.Println(sb.Err())
	// Output:
	// true
	// caisson: caisson.Umask: the umask is given twice by caisson.Umask
}

// A plan prints every step before any is done.
func ExampleSandbox_Plan() {
	fmt.Print(caisson.New(caisson.Rlimit{Resource: caisson.RlimitNofile, Soft: 64, Hard: 64}, caisson.Session{}).Plan())
	// Output:
	//  1 parent  clone3(CLONE_CLEAR_SIGHAND|CLONE_PIDFD|CLONE_VFORK|CLONE_VM)
	//  2 child   prlimit64(0, RLIMIT_NOFILE, {64, 64}, NULL)                   # caisson.Rlimit
	//  3 child   dup3(<stdin>, 0)
	//  4 child   dup3(<stdout>, 1)
	//  5 child   dup3(<stderr>, 2)
	//  6 child   setsid()                                                      # caisson.Session
	//  7 child   close_range(3, ~0U)
	//  8 child   execve(<command>)
}

// The result tells why a command ended.
func ExampleCmd_Result() {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	cmd := caisson.New().CommandContext(ctx, "sleep", "60")
	err := cmd.Run()
	fmt.Println(cmd.Result(), err != nil)
	// Output: timed out by signal 9, killed true
}

// A further command is executed inside a running sandbox: it sees the same files.
func ExampleProcess_Exec() {
	sb := caisson.New(
		plan.Func(func(p *plan.Plan) error { p.Clone(unix.CLONE_NEWPID); return nil }), // or namespaces.PID
		chroot.Host{}, chroot.Proc{}, chroot.Tmpfs{Path: "/tmp"},
	)
	server := sb.Command("sh", "-c", "echo data > /tmp/file; exec sleep 60")
	if err := server.Start(); err != nil {
		log.Fatal(err)
	}
	out, err := server.Process.Exec("cat", "/tmp/file").CombinedOutput()
	fmt.Printf("%s %v\n", out, err)
	server.Process.Kill()
	server.Wait()
}

// A failed start names the step, the part and the cause.
func ExampleError() {
	err := caisson.New(chroot.Pivot{Dir: "/no/such/root"}).Command("true").Run()
	var e *caisson.Error
	if errors.As(err, &e) {
		fmt.Println(e.Primitive, e.Step, errors.Is(err, os.ErrNotExist))
	}
	// Output: chroot.Pivot 1 true
}

// The errors are those of os/exec.
func ExampleCmd_Run() {
	err := caisson.New().Command("sh", "-c", "exit 3").Run()
	var exit *exec.ExitError
	fmt.Println(errors.As(err, &exit), exit.ExitCode())
	fmt.Println(errors.Is(caisson.New().Command("no-such-program").Run(), exec.ErrNotFound))
	// Output:
	// true 3
	// true
}

// The command runs as nobody, without supplementary groups.
func ExampleUser() {
	fmt.Println(caisson.New(caisson.User{UID: 65534, GID: 65534}).Err())
	// Output: <nil>
}

// Limits as docker run --ulimit takes them.
func ExampleParseRlimit() {
	fmt.Println(caisson.ParseRlimit("nofile=1024:2048"))
	// Output: {nofile 1024 2048} <nil>
}

// The command writes files that others cannot read.
func ExampleUmask() {
	out, _ := caisson.New(caisson.Umask(0o077)).Command("sh", "-c", "umask").Output()
	fmt.Printf("%s", out)
	// Output: 0077
}

// The command runs on the first CPU, with low priority.
func ExampleAffinity() {
	fmt.Println(caisson.New(caisson.Affinity{0}, caisson.Nice(10)).Err())
	// Output: <nil>
}

// An init process needs a pid namespace.
func ExampleInit() {
	fmt.Println(caisson.New(caisson.Init{}).Err())
	// Output: caisson: caisson.Init: Init needs a new pid namespace: invalid argument
}
