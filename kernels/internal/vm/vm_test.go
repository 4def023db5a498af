//go:build linux

package vm

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestLoadOrder(t *testing.T) {
	const dep = `kernel/a.ko.xz: kernel/b.ko.xz kernel/c.ko.xz
kernel/b.ko.xz: kernel/c.ko.xz
kernel/c.ko.xz:
kernel/d.ko.xz: kernel/c.ko.xz
`
	got := loadOrder(dep, "a", "builtin", "d")
	want := []string{"kernel/c.ko.xz", "kernel/b.ko.xz", "kernel/a.ko.xz", "kernel/d.ko.xz"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestArchive(t *testing.T) {
	cpio, err := exec.LookPath("cpio")
	if err != nil {
		t.Skip("no cpio to compare with")
	}
	var a archive
	a.add("dir", 0o40755, nil)
	a.add("dir/file", 0o100644, []byte("12345"))
	a.add("TRAILER!!!", 0, nil)
	c := exec.Command(cpio, "-t", "--quiet")
	c.Stdin = &a
	if out, err := c.CombinedOutput(); err != nil || string(out) != "dir\ndir/file\n" {
		t.Errorf("%v: %q", err, out)
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CAISSON_KERNELS_DIR", dir)
	if err := os.Mkdir(dir+"/6.1", 0o755); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"6.1": dir + "/6.1", dir + "/6.1": dir + "/6.1", "6.2": "", "": ""} {
		if got, err := Find(name); got != want || (err == nil) != (want != "") {
			t.Errorf("Find(%q) = %q, %v; want %q", name, got, err, want)
		}
	}
	if err := Missing(dir + "/6.1"); err == nil {
		t.Error("an empty directory passes for a kernel")
	}
}

// TestPrograms: what comes with a kernel is found first, and shown.
func TestPrograms(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(dir+"/programs", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir+"/lib/modules/1", 0o755); err != nil {
		t.Fatal(err)
	}
	command := Command{Args: []string{"/bin/sh"}, Env: []string{"PATH=/first", "PATH=/bin"}, Dir: "/"}
	j, err := Machine{Kernel: dir}.job([]Command{command})
	if err != nil {
		t.Fatal(err)
	}
	env := unique(j.Commands[0].Env)
	if want := []string{"PATH=" + dir + "/programs:/bin", "LD_LIBRARY_PATH=" + dir + "/programs"}; !slices.Equal(env, want) {
		t.Errorf("got %q, want %q", env, want)
	}
	if !slices.Contains(j.Show, dir+"/programs") {
		t.Errorf("only %q is shown", j.Show)
	}
}

// machine skips where no machine can be booted.
func machine(t *testing.T) Machine {
	t.Helper()
	if os.Getenv("VMRUN") == "1" || testing.Short() || runtime.GOARCH != "amd64" {
		t.Skip("boots a machine, which takes time and an amd64 host")
	}
	kernel, err := Find("6.1")
	if err == nil {
		err = Missing(kernel)
	}
	if err != nil {
		t.Skipf("%v; kernels/prepare.sh gets it", err)
	}
	init, err := BuildInit("../../vmrun", "amd64", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return Machine{Kernel: kernel, Init: init}
}

func shell(script string) Command {
	return Command{Args: []string{"/bin/sh", "-c", script}, Env: Env("ONE=1", "ONE=2"), Dir: "/"}
}

// collect returns each command's output and end.
func collect(t *testing.T, m Machine, commands ...Command) (output []string, exit []*Exit, err error) {
	t.Helper()
	output, exit = make([]string, len(commands)), make([]*Exit, len(commands))
	err = m.Run(context.Background(), commands, func(e Event) {
		output[e.Command] += string(e.Output)
		if e.Exit != nil {
			exit[e.Command] = e.Exit
		}
	})
	return output, exit, err
}

type runTest struct {
	name, script, output string
	code                 int
	left                 string // regular expression
}

func runTests(show, work string) []runTest {
	return []runTest{
		{name: "output", script: "echo out; echo err >&2; exit 3", output: "out\nerr\n", code: 3},
		{name: "signal", script: "kill -9 $$", code: 137},
		{name: "environment", script: "echo $VMRUN $ONE $TMPDIR $PWD; id -u", output: "1 2 /tmp /\n0\n"},
		{name: "show", script: "cd " + show + " && cat seen && echo new >seen && cat seen", output: "seen\nnew\n"},
		{name: "work", script: "echo done >" + work + "/file"},
		{name: "clock", script: "date -u +%Y", output: time.Now().UTC().Format("2006\n")},
		{name: "left", script: "mkdir /sys/fs/cgroup/a; mount -t tmpfs a /mnt; exec 3>&1; sleep 1000 & sleep 0.1",
			left: `^cgroup /sys/fs/cgroup/a\nmount /mnt \(tmpfs\)\nprocess \d+ \(sleep\) sleep 1000$`},
		{name: "after left", script: "! grep -l sleep /proc/[0-9]*/stat"},
	}
}

func TestRun(t *testing.T) {
	m := machine(t)
	m.Work = t.TempDir()
	m.Show = []string{t.TempDir()}
	if err := os.WriteFile(m.Show[0]+"/seen", []byte("seen\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := runTests(m.Show[0], m.Work)
	commands := []Command{}
	for _, test := range tests {
		commands = append(commands, shell(test.script))
	}
	output, exit, err := collect(t, m, commands...)
	if err != nil {
		t.Fatal(err)
	}
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if output[i] != test.output || exit[i].Code != test.code {
				t.Errorf("output %q, exit status %d; want %q, %d", output[i], exit[i].Code, test.output, test.code)
			}
			left := strings.Join(exit[i].Left, "\n")
			if test.left == "" && left != "" || !regexp.MustCompile(test.left).MatchString(left) {
				t.Errorf("left behind %q, want %q", left, test.left)
			}
		})
	}
	if b, err := os.ReadFile(m.Work + "/file"); err != nil || string(b) != "done\n" {
		t.Errorf("work has %q, %v", b, err)
	}
	if b, err := os.ReadFile(m.Show[0] + "/seen"); err != nil || string(b) != "seen\n" {
		t.Errorf("what the guest wrote has come to the host: %q, %v", b, err)
	}
}

func TestGuestDies(t *testing.T) {
	output, exit, err := collect(t, machine(t), shell("echo first"),
		shell("echo second; sleep 0.2; echo c >/proc/sysrq-trigger; sleep 9"), shell(""))
	if err == nil || !strings.Contains(err.Error(), "2 of 3 commands") || !strings.Contains(err.Error(), "Kernel panic") {
		t.Errorf("error: %v", err)
	}
	if exit[0] == nil || exit[1] != nil || exit[2] != nil || output[0] != "first\n" || output[1] != "second\n" {
		t.Errorf("output %q, exit %v", output, exit)
	}
}

func TestTimeout(t *testing.T) {
	m := machine(t)
	m.Timeout = 100 * time.Millisecond
	if _, _, err := collect(t, m, shell("")); err == nil || !strings.Contains(err.Error(), "did not end within 100ms") {
		t.Errorf("error: %v", err)
	}
}

func TestWrongInit(t *testing.T) {
	m := machine(t)
	m.Init = "/bin/sh"
	if _, _, err := collect(t, m, shell("")); err == nil || !strings.Contains(err.Error(), "dynamically") {
		t.Errorf("error: %v", err)
	}
	m.Init = filepath.Join(t.TempDir(), "absent")
	if _, _, err := collect(t, m, shell("")); !os.IsNotExist(err) {
		t.Errorf("error: %v", err)
	}
}
