package lsm

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
	"github.com/caisson-dev/caisson/plan/plantest"
)

// simulated is a host whose /proc and /sys are a directory, and which has no system calls of Linux 6.8.
func simulated(t testing.TB, files map[string]string) host {
	h := host{root: t.TempDir(), modules: func() ([]uint64, error) { return nil, syscall.ENOSYS },
		self: func() ([]byte, error) { return nil, syscall.ENOSYS }}
	for _, dir := range []string{"/proc", "/sys/kernel/security", "/sys/fs/selinux"} {
		require.NoError(t, os.MkdirAll(h.root+dir, 0o755))
	}
	for name, content := range files {
		require.NoError(t, os.MkdirAll(filepath.Dir(h.root+name), 0o755))
		require.NoError(t, os.WriteFile(h.root+name, []byte(content), 0o644))
	}
	return h
}

func TestActiveSimulated(t *testing.T) {
	const list = "/sys/kernel/security/lsm"
	for name, c := range map[string]struct {
		files map[string]string
		want  Modules
	}{
		"debian": {map[string]string{list: "lockdown,capability,landlock,yama,apparmor", "/sys/module/apparmor/parameters/mode": "enforce\n"},
			Modules{{"lockdown", 0}, {"capability", 0}, {"landlock", 0}, {"yama", 0}, {"apparmor", Enforcing}}},
		"complaining":       {map[string]string{list: "apparmor\n", "/sys/module/apparmor/parameters/mode": "complain\n"}, Modules{{"apparmor", Complaining}}},
		"fedora":            {map[string]string{list: "selinux", "/sys/fs/selinux/enforce": "1"}, Modules{{"selinux", Enforcing}}},
		"permissive":        {map[string]string{list: "selinux", "/sys/fs/selinux/enforce": "0"}, Modules{{"selinux", Complaining}}},
		"selinuxfs missing": {map[string]string{list: "selinux"}, Modules{{"selinux", Unknown}}},
		"strange enforce":   {map[string]string{list: "selinux", "/sys/fs/selinux/enforce": "2"}, Modules{{"selinux", Unknown}}},
		"none":              {map[string]string{list: ""}, Modules{}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := simulated(t, c.files).active()
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
}

func TestActiveErrors(t *testing.T) {
	_, err := simulated(t, nil).active()
	require.ErrorIs(t, err, errors.ErrUnsupported, "neither the call nor the file")
	h := simulated(t, map[string]string{"/sys/kernel/security/lsm": "apparmor"})
	h.modules = func() ([]uint64, error) { return nil, syscall.EFAULT }
	_, err = h.active()
	require.ErrorIs(t, err, syscall.EFAULT, "an error is no reason to ask elsewhere")
	h.modules = func() ([]uint64, error) { return []uint64{100, 104, 110, 113, 114, 99}, nil }
	got, err := h.active()
	require.NoError(t, err)
	var names []string
	for _, m := range got {
		names = append(names, m.Name)
	}
	require.Equal(t, []string{"capability", "apparmor", "landlock", "ipe", "id 114", "id 99"}, names)
	// A symbolic link where securityfs belongs.
	h = simulated(t, nil)
	require.NoError(t, os.Symlink("/etc/hostname", h.root+"/sys/kernel/security/lsm"))
	_, err = h.active()
	require.ErrorIs(t, err, syscall.EXDEV)
}

// TestNotMounted: a directory where a file system of the kernel's belongs is not believed.
func TestNotMounted(t *testing.T) {
	_, err := host{}.open("/etc", securityMagic)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	_, err = host{}.open("/no/such", procMagic)
	require.ErrorIs(t, err, fs.ErrNotExist)
	f, err := host{}.openProc()
	require.NoError(t, err)
	f.Close()
}

func TestLabelsSimulated(t *testing.T) {
	const list = "/sys/kernel/security/lsm"
	for name, c := range map[string]struct {
		files map[string]string
		want  []Label
		err   error
	}{
		"apparmor":        {map[string]string{list: "apparmor", "/proc/7/attr/apparmor/current": "docker-default (enforce)\n"}, []Label{{"apparmor", "docker-default", "enforce"}}, nil},
		"unconfined":      {map[string]string{list: "apparmor", "/proc/7/attr/apparmor/current": "unconfined\n"}, []Label{{"apparmor", "unconfined", ""}}, nil},
		"selinux":         {map[string]string{list: "selinux", "/proc/7/attr/current": "system_u:system_r:container_t:s0:c1,c2\x00"}, []Label{{"selinux", "system_u:system_r:container_t:s0:c1,c2", ""}}, nil},
		"both":            {map[string]string{list: "selinux,apparmor", "/proc/7/attr/current": "a:b:c", "/proc/7/attr/apparmor/current": "x (mixed)"}, []Label{{"selinux", "a:b:c", ""}, {"apparmor", "x", "mixed"}}, nil},
		"apparmor first":  {map[string]string{list: "apparmor,selinux", "/proc/7/attr/current": "x (kill)", "/proc/7/attr/apparmor/current": "x (kill)"}, []Label{{"apparmor", "x", "kill"}}, nil},
		"smack":           {map[string]string{list: "smack", "/proc/7/attr/smack/current": "_"}, []Label{{"smack", "_", ""}}, nil},
		"no labels":       {map[string]string{list: "landlock,yama"}, nil, nil},
		"no such process": {map[string]string{list: "apparmor", "/proc/8/attr/apparmor/current": "x"}, nil, fs.ErrNotExist},
		"link":            {map[string]string{list: "apparmor"}, nil, syscall.EXDEV},
		"no list":         {nil, nil, errors.ErrUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			h := simulated(t, c.files)
			if name == "link" {
				require.NoError(t, os.MkdirAll(h.root+"/proc/7/attr/apparmor", 0o755))
				require.NoError(t, os.Symlink("/etc/hostname", h.root+"/proc/7/attr/apparmor/current"))
			}
			got, err := h.labels(7)
			require.ErrorIs(t, err, c.err)
			require.Equal(t, c.want, got)
		})
	}
	for _, pid := range []int{0, -1} {
		_, err := here().labels(pid)
		require.ErrorIs(t, err, syscall.EINVAL)
	}
}

func lsmContext(id uint64, text string) []byte {
	b := make([]byte, 32, 64)
	for i, v := range []uint64{id, 0, uint64((32 + len(text) + 7) &^ 7), uint64(len(text))} {
		binary.NativeEndian.PutUint64(b[8*i:], v)
	}
	b = append(b, text...)
	return append(b, make([]byte, -len(b)&7)...)
}

func TestSelfLabelsSimulated(t *testing.T) {
	h := simulated(t, map[string]string{"/sys/kernel/security/lsm": "apparmor", "/proc/thread-self/attr/apparmor/current": "x (enforce)\n"})
	got, err := h.selfLabels()
	require.NoError(t, err)
	require.Equal(t, []Label{{"apparmor", "x", "enforce"}}, got)
	h.self = func() ([]byte, error) {
		return append(lsmContext(104, "docker (enforce)"), lsmContext(101, "a:b:c\x00")...), nil
	}
	got, err = h.selfLabels()
	require.NoError(t, err)
	require.Equal(t, []Label{{"apparmor", "docker", "enforce"}, {"selinux", "a:b:c", ""}}, got)
	h.self = func() ([]byte, error) { return lsmContext(104, "x")[:33], nil }
	_, err = h.selfLabels()
	require.ErrorIs(t, err, syscall.EBADMSG)
	h.self = func() ([]byte, error) { return nil, syscall.E2BIG }
	_, err = h.selfLabels()
	require.ErrorIs(t, err, syscall.E2BIG)
}

func FuzzContexts(f *testing.F) {
	f.Add(lsmContext(101, "a:b:c"))
	f.Add(append(lsmContext(104, "x (enforce)"), lsmContext(1, "")...))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		labels, err := parseContexts(b)
		if err == nil && len(labels)*32 > len(b) {
			t.Errorf("%d labels in %d bytes", len(labels), len(b))
		}
	})
}

func TestPidfdInfo(t *testing.T) {
	for info, want := range map[string]error{"Pid:\t12\nNSpid:\t12\n": nil, "Pid:\t-1\n": syscall.ESRCH, "Pid:\t0\n": errors.ErrUnsupported,
		"pos:\t0\n": syscall.EINVAL, "Pid:\tx\n": syscall.EBADMSG} {
		pid, err := parsePid(info)
		require.ErrorIs(t, err, want, info)
		if want == nil {
			require.Equal(t, 12, pid)
		}
	}
	f, err := os.Open("/dev/null")
	require.NoError(t, err)
	defer f.Close()
	_, err = LabelsOf(f)
	require.ErrorIs(t, err, syscall.EINVAL)
}

// simAppArmor is the part on a simulated host.
type simAppArmor struct {
	h       host
	command string
	name    string
}

func (s simAppArmor) Apply(p *plan.Plan) error {
	return applyProfile(p, s.h, s.command, s.name, sameStack)
}

func TestAppArmorGolden(t *testing.T) {
	h := simulated(t, map[string]string{"/sys/kernel/security/lsm": "landlock,apparmor"})
	p := simAppArmor{h, "exec", "docker-default"}
	plantest.Check(t, p)
	compare(t, "apparmor", plan.Build(p))
}

func compare(t *testing.T, name string, p *plan.Plan) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	got := withoutNofile(p.String())
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

func TestAppArmorErrors(t *testing.T) {
	h := simulated(t, map[string]string{"/sys/kernel/security/lsm": "apparmor"})
	for _, name := range []string{"", " x", "x ", "a\nb", "a\x00", "a//&", "//&b", "&b", strings.Repeat("x", labelSize)} {
		require.ErrorIs(t, plan.Build(simAppArmor{h, "exec", name}).Err(), syscall.EINVAL, "%q", name)
	}
	var conflict *plan.ConflictError
	require.ErrorAs(t, plan.Build(simAppArmor{h, "exec", "a"}, simAppArmor{h, "stack", "b"}).Err(), &conflict)
	other := simulated(t, map[string]string{"/sys/kernel/security/lsm": "selinux"})
	require.ErrorIs(t, plan.Build(simAppArmor{other, "exec", "a"}).Err(), errors.ErrUnsupported)
	require.NoError(t, plan.Build(simAppArmor{simulated(t, nil), "exec", "a"}).Err(), "unknown; the child finds out")
}

func TestStacks(t *testing.T) {
	for _, c := range []struct {
		have, want string
		same, has  bool
	}{
		{"a (enforce)", "a", true, true},
		{"a (enforce)", "b", false, false},
		{"a//&b (mixed)", "b//&a", true, true},
		{"a//&b (enforce)", "a", false, true},
		{"a", "a//&b", false, false},
		{"", "a", false, false},
		{":ns://a (enforce)", ":ns:a", true, true},
		{":ns:a//&:ns:b (enforce)", ":ns://b//&:ns://a", true, true},
		{"a b (enforce)", "a b", true, true},
		{"a (odd", "a (odd", true, true},
		{"ab", "a", false, false},
	} {
		require.Equal(t, []bool{c.same, c.has}, []bool{sameStack(c.have, c.want), hasStack(c.have, c.want)}, "%+v", c)
	}
}

// TestVerify: what the parent finds, and what it says to it.
func TestVerify(t *testing.T) {
	for name, c := range map[string]struct {
		understood, current, own string
		err                      error
	}{
		"as asked":               {"p (enforce)\n", "p (enforce)\n", "unconfined\n", nil},
		"not understood":         {"", "p (enforce)\n", "unconfined\n", syscall.EPERM},
		"another":                {"q (enforce)\n", "q (enforce)\n", "unconfined\n", syscall.EPERM},
		"nothing has happened":   {"p (enforce)\n", "unconfined\n", "unconfined\n", syscall.EPERM},
		"the policy has gone on": {"p (enforce)\n", "p//child (enforce)\n", "unconfined\n", nil},
		"the caller's own":       {"p (enforce)\n", "p (enforce)\n", "p (enforce)\n", nil},
		"ended":                  {"p (enforce)\n", "", "unconfined\n", fs.ErrNotExist},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"/proc/thread-self/attr/apparmor/current": c.own}
			if c.current != "" {
				files["/proc/7/attr/apparmor/current"] = c.current
			}
			proc, err := simulated(t, files).openProc()
			require.NoError(t, err)
			defer proc.Close()
			ch := change{module: "apparmor", current: "attr/apparmor/current", want: "p", same: sameStack, wait: time.Millisecond}
			err = ch.verify(append([]byte(c.understood), make([]byte, 10)...), proc, 7)
			require.ErrorIs(t, err, c.err)
			var l *LabelError
			if c.err == syscall.EPERM {
				require.ErrorAs(t, err, &l)
				require.Equal(t, "p", l.Want)
			}
		})
	}
}

// TestWeak: a label that denies nothing is reported, by the module's own words.
func TestWeak(t *testing.T) {
	for _, c := range []struct{ module, understood, enforce, want string }{
		{"apparmor", "p (enforce)", "", ""},
		{"apparmor", "p (kill)", "", ""},
		{"apparmor", "p (complain)", "", "AppArmor only logs what the profile p does not allow"},
		{"apparmor", "p (unconfined)", "", "AppArmor's profile p confines nothing"},
		{"apparmor", "p//&q (mixed)", "", "not all of AppArmor's profiles p are enforced"},
		{"selinux", "a:b:c", "1", ""},
		{"selinux", "a:b:c", "0", "SELinux is permissive: it logs and denies nothing"},
		{"selinux", "a:b:c", "", ""}, // nobody says
	} {
		h := simulated(t, map[string]string{"/sys/fs/selinux/enforce": c.enforce})
		require.Equal(t, c.want, change{module: c.module, want: "p"}.weak(h, c.understood), "%+v", c)
	}
	var r plan.Result
	for _, text := range []string{"", "one", "", "two"} {
		detail(&r, text)
	}
	require.Equal(t, "one; two", r.Detail)
}

// TestVerifyWaits: the label comes a moment after the parent goes on.
func TestVerifyWaits(t *testing.T) {
	h := simulated(t, map[string]string{"/proc/thread-self/attr/apparmor/current": "unconfined\n", "/proc/7/attr/apparmor/current": "unconfined\n"})
	proc, err := h.openProc()
	require.NoError(t, err)
	defer proc.Close()
	go func() {
		time.Sleep(20 * time.Millisecond)
		os.WriteFile(h.root+"/new", []byte("p (enforce)\n"), 0o600)
		os.Rename(h.root+"/new", h.root+"/proc/7/attr/apparmor/current")
	}()
	c := change{module: "apparmor", current: "attr/apparmor/current", want: "p", same: sameStack}
	require.NoError(t, c.verify([]byte("p (enforce)\n"), proc, 7))
}

// TestCVE_2025_52881, as CVE-2019-16884 and CVE-2023-27561: files of a procfs that are something else. TestAppArmor has a root with a tmpfs over /proc.
func TestCVE_2025_52881(t *testing.T) {
	h := simulated(t, map[string]string{"/sys/kernel/security/lsm": "apparmor", "/proc/self/attr/apparmor/x": ""})
	victim := filepath.Join(t.TempDir(), "victim")
	require.NoError(t, os.WriteFile(victim, nil, 0o644))
	require.NoError(t, os.Symlink(victim, h.root+"/proc/self/attr/apparmor/exec"))
	_, err := launchSimulated(t, simAppArmor{h, "exec", "p"})
	require.ErrorIs(t, err, syscall.EXDEV)
	b, err := os.ReadFile(victim)
	require.NoError(t, err)
	require.Empty(t, b)
	// A plain file takes the label and gives it back, but the command does not have it.
	require.NoError(t, os.Remove(h.root+"/proc/self/attr/apparmor/exec"))
	require.NoError(t, os.WriteFile(h.root+"/proc/self/attr/apparmor/exec", nil, 0o666))
	_, err = launchSimulated(t, simAppArmor{h, "exec", "p"})
	var l *LabelError
	require.ErrorAs(t, err, &l)
}

func TestProfilesSimulated(t *testing.T) {
	h := simulated(t, map[string]string{"/sys/kernel/security/apparmor/profiles": "docker-default (enforce)\n/usr/bin/man (complain)\nodd name (kill)\n"})
	got, err := h.profiles()
	require.NoError(t, err)
	require.Equal(t, []Label{{"apparmor", "docker-default", "enforce"}, {"apparmor", "/usr/bin/man", "complain"}, {"apparmor", "odd name", "kill"}}, got)
	_, err = simulated(t, nil).profiles()
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.ErrorIs(t, simulated(t, nil).policy(".replace", []byte("x")), errors.ErrUnsupported)
	require.ErrorIs(t, h.policy(".replace", nil), syscall.EINVAL)
	require.ErrorIs(t, RemoveProfile("a\nb"), syscall.EINVAL)
	require.NoError(t, os.WriteFile(h.root+"/sys/kernel/security/apparmor/.replace", nil, 0o644))
	require.NoError(t, h.policy(".replace", []byte("binary")))
	b, err := os.ReadFile(h.root + "/sys/kernel/security/apparmor/.replace")
	require.NoError(t, err)
	require.Equal(t, "binary", string(b))
	if os.Geteuid() != 0 {
		require.NoError(t, os.Chmod(h.root+"/sys/kernel/security/apparmor/.replace", 0))
		require.ErrorIs(t, h.policy(".replace", []byte("x")), fs.ErrPermission)
	}
}

// TestHere: this kernel's own answer. The file of securityfs and the call do not contradict each other.
func TestHere(t *testing.T) {
	m, err := Active()
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skipf("the kernel does not say: %v", err)
	}
	require.NoError(t, err)
	require.Equal(t, probe().abi > 0, m.Has("landlock"), "%v", m)
	labels, err := Labels(os.Getpid())
	require.NoError(t, err)
	self, err := SelfLabels()
	require.NoError(t, err)
	require.Equal(t, labels, self)
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	require.NoError(t, err)
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	of, err := LabelsOf(f)
	require.NoError(t, err)
	require.Equal(t, labels, of)
	for _, module := range []string{"apparmor", "selinux"} {
		if os.Getenv("CAISSON_GUEST_LSM") == module {
			require.Equal(t, module, labels[0].Module)
			require.Equal(t, Enforcing, m[m.index(module)].Mode)
		}
	}
}

func TestEndedProcess(t *testing.T) {
	p, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
	require.NoError(t, err)
	fd, err := unix.PidfdOpen(p.Pid, 0)
	require.NoError(t, err)
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	_, err = p.Wait()
	require.NoError(t, err)
	_, err = LabelsOf(f)
	require.ErrorIs(t, err, syscall.ESRCH)
}
