//go:build linux

package kernels

import (
	"cmp"
	"flag"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caisson-dev/caisson/kernels/internal/vm"
)

// machine is one boot.
type machine struct {
	name    string
	kernel  string            // in the directory that prepare.sh fills
	release string            // of the kernel, its beginning
	lsm     string            // that enforces
	only    []string          // packages of the module; nil is all
	without []string          // packages that another machine with the same kernel runs
	tests   string            // those that run, as -test.run has it; "" is all
	few     map[string]string // the same for some packages
	skip    string            // tests that another machine runs, and for which this one's kernel makes no difference
	systemd bool              // is process 1
	append  string            // to the kernel's parameters
}

// Where the kernel is one that has run everything already, only the packages run that may see a difference.
var (
	onceOnly = []string{"examples/learn", "examples/limits", "examples/run", "examples/supervise", "internal/initprog", "internal/sys", "overlay/layer", "overlay/store",
		"seccomp/learn"}
	labelled = []string{"chroot", "examples/escape", "examples/run", "kernels/guest", "lsm", "namespaces"}
	assembly = []string{"caps", "internal/dumpable", "internal/initprog", "internal/launch", "internal/nofile", "internal/sys",
		"kernels/guest", "lsm", "plan"}
)

func machines() []machine {
	return []machine{
		{name: "6.1-apparmor", kernel: "6.1", release: "6.1.", lsm: "apparmor", without: onceOnly,
			skip: "^(TestLikeOSExec|TestPrivate|TestConflicts|TestDead|TestManyListeners|TestTerminalExecAsNobody)$"},
		{name: "6.12-apparmor", kernel: "6.12", release: "6.12.", lsm: "apparmor"},
		{name: "6.1-selinux", kernel: "6.1", release: "6.1.", lsm: "selinux", only: labelled,
			few: map[string]string{"examples/run": "SELinux|Relabel|Label|Rootfs"}, skip: "Old|^TestAwkwardNames$|^TestDeepTree$"},
		{name: "arm64", kernel: "arm64", release: "6.1.", lsm: "apparmor", only: assembly},
		{name: "6.1-neither", kernel: "6.1", release: "6.1.", append: "lsm=landlock,lockdown,yama,bpf", only: []string{"lsm", "examples/escape"}},
		{name: "6.1-zfs", kernel: "zfs", release: "6.1.", lsm: "apparmor", only: []string{"overlay/driver"}, tests: "Zfs"},
		{name: "6.12-systemd", kernel: "6.12", release: "6.12.", lsm: "apparmor", only: []string{"cgroups"}, tests: "^TestBooted", systemd: true},
	}
}

func TestKernel(t *testing.T) {
	switch {
	case os.Getenv("VMRUN") == "1":
		t.Skip("this is one of the kernel lane's machines")
	case testing.Short():
		t.Skip("takes minutes")
	case runtime.GOARCH != "amd64":
		t.Skip("the machines use the programs of an amd64 host")
	}
	b := newBuild(t)
	slots := make(chan struct{}, max(2, runtime.NumCPU())) // a machine keeps one processor busy
	var begun chan struct{}
	for _, m := range machines() {
		t.Run(m.name, func(t *testing.T) {
			before, own := begun, make(chan struct{})
			begun = own
			t.Parallel()
			if before != nil {
				<-before // in their order: those that take long come first
			}
			slots <- struct{}{}
			defer func() { <-slots }()
			close(own)
			m.run(t, b)
		})
	}
}

// TestMain lets all machines wait for their turn at once.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", strconv.Itoa(len(machines()))); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// find returns the path of the kernel, policy or user land, and skips where it is not there or could not be booted.
func find(t *testing.T, name string) string {
	t.Helper()
	path, err := vm.Find(name)
	if err == nil && !strings.HasSuffix(name, ".pol") && name != "systemd" {
		err = vm.Missing(path)
	}
	if err == nil {
		return path
	}
	if os.Getenv("CAISSON_KERNELS") == "required" {
		t.Fatalf("%v; CAISSON_KERNELS=required, and kernels/prepare.sh has not been run", err)
	}
	t.Skipf("%v; to have this test, run kernels/prepare.sh, then go test -count=1 ./kernels", err)
	return ""
}

// run boots the machine, and reports each package as a subtest when all is over.
func (m machine) run(t *testing.T, b *build) {
	v := vm.Machine{Kernel: find(t, m.kernel), Show: []string{b.module, b.dir}, Append: m.append}
	if m.lsm == "selinux" {
		v.SELinux = find(t, "selinux.pol")
	}
	if m.systemd {
		v.Systemd = find(t, "systemd")
	}
	arch, err := vm.Arch(v.Kernel)
	if err != nil {
		t.Fatal(err)
	}
	p := b.programs(t, arch)
	v.Init = p.init
	tests := m.chosen(p.tests)
	r := newReport(t, m.name, tests)
	m.boot(t, v, r, m.commands(arch, tests, time.Until(deadline(t))))
	if again := r.failed(t); len(again) > 0 && len(again) <= few && !t.Failed() {
		second := r.only(again)
		m.boot(t, v, second, m.commands(arch, second.tests, time.Until(deadline(t))))
		r.replace(again, second)
	}
	for i := range tests {
		r.report(t, i)
	}
}

// few packages that have failed run once more, in a new machine: an emulated one stands still at times, and some tests look at the clock. Their first results stay in
// the record.
const few = 4

// chosen are the test binaries that this machine runs.
func (m machine) chosen(tests []testBinary) []testBinary {
	return slices.DeleteFunc(slices.Clone(tests), func(b testBinary) bool {
		return m.only != nil && !slices.Contains(m.only, b.name) || slices.Contains(m.without, b.name)
	})
}

// boot boots again where a package has brought the machine down, for the packages after it.
func (m machine) boot(t *testing.T, v vm.Machine, r *report, commands []vm.Command) {
	end := deadline(t)
	for first := 0; first < len(commands); {
		v.Timeout = time.Until(end)
		err := v.Run(t.Context(), commands[first:], func(e vm.Event) {
			e.Command += first
			r.handle(e)
		})
		if err == nil {
			return
		}
		t.Error(err)
		culprit := first + slices.Index(r.exit[first:], nil)
		if r.output[culprit].Len() == 0 || time.Now().After(end) {
			return // it does not get as far as to run a test, and would not the next time
		}
		first = culprit + 1
	}
}

// deadline is in 25 minutes, or earlier to leave go test enough of its own time to print what there is.
func deadline(t *testing.T) time.Time {
	end := time.Now().Add(25 * time.Minute)
	if d, ok := t.Deadline(); ok && d.Before(end.Add(20*time.Second)) {
		return d.Add(-20 * time.Second)
	}
	return end
}

// elsewhere are tests that depend on no kernel, and take minutes in an emulated machine. The host runs them.
const elsewhere = "^(TestDockerAsLibseccomp|TestProfilesAsLibseccomp|TestDifferential|TestTables|TestValues|TestBadFlags|TestStory)$"

// commands gives one package at most half of the machine's time, so that a test that hangs prints its goroutines and
// the others have their turn.
func (m machine) commands(arch string, tests []testBinary, limit time.Duration) []vm.Command {
	env := vm.Env("CAISSON_SLOW=1", "CAISSON_GUEST_KERNEL="+m.release, "CAISSON_GUEST_LSM="+m.lsm, "CAISSON_GUEST_ARCH="+arch)
	var commands []vm.Command
	for _, b := range tests {
		commands = append(commands, vm.Command{
			Args: []string{b.file, "-test.v=test2json", "-test.paniconexit0", "-test.timeout=" + (limit / 2).String(), "-test.skip=" + strings.Trim(elsewhere+"|"+m.skip, "|"),
				"-test.run=" + cmp.Or(m.few[b.name], m.tests)},
			Env: env,
			Dir: b.dir,
		})
	}
	return commands
}
