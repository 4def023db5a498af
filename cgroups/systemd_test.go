package cgroups_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/cgroups"
)

// startBus runs a real dbus-daemon, with the lines in its policy, and gives its address.
func startBus(t *testing.T, policy string) string {
	t.Helper()
	daemon, err := exec.LookPath("dbus-daemon")
	if err != nil {
		t.Skip("needs dbus-daemon (package dbus): ", err)
	}
	dir, err := os.MkdirTemp("", "bus") // a socket's path is short
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	config := filepath.Join(dir, "bus.conf")
	require.NoError(t, os.WriteFile(config, []byte(`<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
		<busconfig><type>session</type><auth>EXTERNAL</auth><listen>unix:path=`+dir+`/b%20us</listen>
		<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/>`+policy+`</policy></busconfig>`), 0o600))
	cmd := exec.Command(daemon, "--config-file="+config, "--nofork", "--nopidfile", "--print-address")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		cmd.Wait()
		t.Fatal("dbus-daemon: ", errs.String())
	}
	return strings.TrimSpace(address)
}

// property is one of a(sv).
type property struct {
	Name  string
	Value dbus.Variant
}

type auxiliary struct {
	Name       string
	Properties []property
}

// manager is a systemd that can make units, and no more: it makes the directories, and says what systemd says.
type manager struct {
	t      *testing.T
	conn   *dbus.Conn
	result string         // of jobs; "" is done
	refuse *dbus.Error    // the answer to StartTransientUnit
	hangs  bool           // jobs never end
	idle   bool           // processes are not moved
	forger *dbus.Conn     // says first that the job is done
	lacks  string         // a property that an older systemd does not have
	loses  string         // a property that is not taken, in silence
	jobs   sync.WaitGroup // that are reported

	mu    sync.Mutex
	units map[string]map[string]dbus.Variant
	n     uint32
}

const (
	systemdName = "org.freedesktop.systemd1"
	managerName = systemdName + ".Manager"
	managerPath = dbus.ObjectPath("/org/freedesktop/systemd1")
	unitPath    = managerPath + "/unit/"
	base        = "/caisson-test-systemd" // the group that it manages
)

func connect(t *testing.T, address string) *dbus.Conn {
	t.Helper()
	conn, err := dbus.Connect(address)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

func startManager(t *testing.T, address string) *manager {
	t.Helper()
	m := &manager{t: t, conn: connect(t, address), units: map[string]map[string]dbus.Variant{}}
	require.NoError(t, m.conn.Export(m, managerPath, managerName))
	_, err := m.conn.RequestName(systemdName, dbus.NameFlagDoNotQueue)
	require.NoError(t, err)
	t.Cleanup(func() {
		m.set(func() {}) // jobs are begun under the lock
		m.jobs.Wait()
	})
	return m
}

// set changes what it does: calls may come at any time.
func (m *manager) set(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

func (m *manager) Subscribe() *dbus.Error { return nil }

func (m *manager) StartTransientUnit(sender dbus.Sender, name, mode string, properties []property, _ []auxiliary) (dbus.ObjectPath, *dbus.Error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refuse != nil {
		return "", m.refuse
	}
	if m.units[name] != nil {
		return "", dbus.NewError(systemdName+".UnitExists", []any{"Unit " + name + " was already loaded or has a fragment file."})
	}
	unit := map[string]dbus.Variant{"mode": dbus.MakeVariant(mode)}
	if err := m.take(unit, properties); err != nil {
		return "", err
	}
	m.units[name] = unit
	if m.result == "" && os.Geteuid() == 0 {
		if err := m.place(string(sender), name, unit); err != nil {
			return "", dbus.MakeFailedError(err)
		}
	}
	return m.job(name), nil
}

// place makes the unit's group, and moves the processes into it.
func (m *manager) place(sender, name string, unit map[string]dbus.Variant) error {
	pids, _ := unit["PIDs"].Value().([]uint32)
	for i, pid := range pids {
		if pid == 0 {
			if err := m.conn.BusObject().Call("org.freedesktop.DBus.GetConnectionUnixProcessID", 0, sender).Store(&pids[i]); err != nil {
				return err
			}
		}
	}
	g, err := cgroups.Create(base+"/"+name, cgroups.Limits{})
	if err != nil || m.idle {
		return err
	}
	defer g.Close()
	for _, pid := range pids {
		if err := g.Add(int(pid)); err != nil {
			return err
		}
	}
	return nil
}

// job reports the end of a job, a moment later, after that of another one's.
func (m *manager) job(unit string) dbus.ObjectPath {
	m.n++
	n, object := m.n, managerPath+dbus.ObjectPath("/job/"+strconv.Itoa(int(m.n)))
	result := m.result
	if result == "" {
		result = "done"
	}
	if m.hangs {
		return object
	}
	forger := m.forger
	m.jobs.Go(func() {
		if forger != nil {
			forger.Emit(managerPath, managerName+".JobRemoved", n, object, unit, "done")
		}
		m.conn.Emit(managerPath, managerName+".JobRemoved", n+100, managerPath+"/job/0", "other.scope", "failed")
		time.Sleep(10 * time.Millisecond)
		m.conn.Emit(managerPath, managerName+".JobRemoved", n, object, unit, result)
	})
	return object
}

func (m *manager) StopUnit(name, mode string) (dbus.ObjectPath, *dbus.Error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.units[name] == nil {
		return "", dbus.NewError(systemdName+".NoSuchUnit", []any{"Unit " + name + " not loaded."})
	}
	delete(m.units, name)
	if g, err := cgroups.Open(base + "/" + name); err == nil {
		if err := g.Delete(); err != nil {
			return "", dbus.MakeFailedError(err)
		}
	}
	return m.job(name), nil
}

func (m *manager) GetUnit(name string) (dbus.ObjectPath, *dbus.Error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.units[name] == nil && name != "init.scope" && name != "-.slice" {
		return "", dbus.NewError(systemdName+".NoSuchUnit", []any{"Unit " + name + " not loaded."})
	}
	object := unitPath + dbus.ObjectPath(strings.NewReplacer(".", "_2e", "-", "_2d").Replace(name))
	kind := systemdName + "." + map[string]string{".scope": "Scope", ".slice": "Slice", ".service": "Service"}[path.Ext(name)]
	m.conn.Export(group{kind, base + "/" + name, m, name}, object, "org.freedesktop.DBus.Properties")
	return object, nil
}

// group answers what the group of a unit is.
type group struct {
	kind, path string
	m          *manager
	name       string
}

func (g group) Get(kind, name string) (dbus.Variant, *dbus.Error) {
	if kind != g.kind || name != "ControlGroup" {
		return dbus.Variant{}, dbus.NewError("org.freedesktop.DBus.Error.UnknownProperty", []any{kind + "." + name})
	}
	return dbus.MakeVariant(g.path), nil
}

// asked gives the properties that a unit was asked for with.
func (m *manager) asked(name string) map[string]any {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := map[string]any{}
	for k, v := range m.units[name] {
		all[k] = v.Value()
	}
	return all
}

// managed is the group in which units are made.
func managed(t *testing.T) {
	t.Helper()
	root(t)
	g, err := cgroups.Create(base, cgroups.Limits{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, g.Delete()) })
}

func TestSystemdScope(t *testing.T) {
	managed(t)
	address := startBus(t, "")
	m := startManager(t, address)
	forger := connect(t, address)
	m.set(func() { m.forger = forger })
	ctx := t.Context()
	cmd := sleeper(t)
	at := cgroups.Systemd{Unit: "jobs.scope", Slice: "batch.slice", PIDs: []int{cmd.Process.Pid}, Address: address}
	u, err := at.Start(ctx)
	require.NoError(t, err)
	asked := m.asked("jobs.scope")
	delete(asked, "Description")
	require.Equal(t, map[string]any{"mode": "fail", "CollectMode": "inactive-or-failed", "PIDs": []uint32{uint32(cmd.Process.Pid)}, "Delegate": true, "Slice": "batch.slice"}, asked)
	require.Equal(t, base+"/jobs.scope", u.Path())
	pids, err := u.Procs()
	require.NoError(t, err)
	require.Equal(t, []int{cmd.Process.Pid}, pids)

	out, r := run(t, "cat /proc/self/cgroup", cgroups.Limits{Below: u.Group, Name: "one", PIDs: 10, Memory: 64 * cgroups.MiB})
	require.Contains(t, out, base+"/jobs.scope/one\n")
	require.Positive(t, r.MemoryPeak)

	_, err = at.Start(ctx)
	require.ErrorIs(t, err, fs.ErrExist)
	require.ErrorContains(t, err, "jobs.scope")
	same, err := cgroups.Systemd{Unit: "jobs.scope", Address: address}.Open(ctx)
	require.NoError(t, err)
	require.Equal(t, u.Directories(), same.Directories())
	require.NoError(t, same.Close())
	require.NoError(t, u.Stop(ctx))
	require.Error(t, cmd.Wait(), "killed")
	_, err = at.Open(ctx)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// TestSystemdSelf: without PIDs the caller itself is moved, and out of the way; the unit is not stopped over its head.
func TestSystemdSelf(t *testing.T) {
	managed(t)
	address := startBus(t, "")
	startManager(t, address)
	own, err := cgroups.Of(os.Getpid())
	require.NoError(t, err)
	before := places(t)
	t.Cleanup(func() { // back to where it was
		for dir := range before {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0))
		}
		own.Close()
	})
	u, err := cgroups.Systemd{Address: address}.Start(t.Context())
	require.NoError(t, err)
	defer u.Close()
	require.Regexp(t, `^caisson-[0-9a-f]{16}\.scope$`, u.Name)
	pids, err := u.Procs()
	require.NoError(t, err)
	require.Contains(t, pids, os.Getpid())
	text, err := os.ReadFile("/proc/self/cgroup")
	require.NoError(t, err)
	if _, err := os.Stat(u.Directories()[0] + "/cgroup.controllers"); err == nil {
		require.Contains(t, string(text), "0::"+u.Path()+"/"+cgroups.Leaf+"\n")
	}
	found, err := cgroups.Own()
	require.NoError(t, err)
	require.Equal(t, u.Path(), found.Path(), "and is the place for groups from now on")
	found.Close()
	out, _ := run(t, "cat /proc/self/cgroup", cgroups.Limits{PIDs: 10})
	require.Contains(t, out, u.Path()+"/caisson-")
	require.ErrorIs(t, u.Stop(t.Context()), syscall.EDEADLK)
}

// places gives the directories of the process's groups.
func places(t *testing.T) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	text, err := os.ReadFile("/proc/self/cgroup")
	require.NoError(t, err)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		options := "," + f[len(f)-1] + ","
		for own := range strings.Lines(string(text)) {
			o := strings.SplitN(strings.TrimSpace(own), ":", 3)
			if o[1] == "" && strings.Contains(line, " - cgroup2 ") || o[1] != "" && strings.Contains(line, " - cgroup ") && strings.Contains(options, ","+o[1]+",") {
				all[filepath.Join(f[4], o[2])] = true
			}
		}
	}
	require.NotEmpty(t, all)
	return all
}

func TestSystemdSlice(t *testing.T) {
	managed(t)
	address := startBus(t, "")
	m := startManager(t, address)
	u, err := cgroups.Systemd{Unit: "caisson-batch.slice", Address: address}.Start(t.Context())
	require.NoError(t, err)
	require.NotContains(t, m.asked(u.Name), "PIDs")
	s, err := u.Stats()
	require.NoError(t, err)
	require.True(t, s.CPU.Known)
	require.NoError(t, u.Stop(t.Context()))
	_, err = os.Stat(u.Directories()[0])
	require.ErrorIs(t, err, fs.ErrNotExist)
	again, err := cgroups.Systemd{Unit: "caisson-batch.slice", Address: address}.Start(t.Context())
	require.NoError(t, err)
	require.NoError(t, remove(again.Path()))
	m.mu.Lock()
	delete(m.units, again.Name)
	m.mu.Unlock()
	require.NoError(t, again.Stop(t.Context()), "it is gone already")
}

func remove(p string) error {
	g, err := cgroups.Open(p)
	if err != nil {
		return err
	}
	return g.Delete()
}

// TestSystemdNotMoved: a systemd that has not done what it says is not believed.
func TestSystemdNotMoved(t *testing.T) {
	managed(t)
	address := startBus(t, "")
	m := startManager(t, address)
	m.set(func() { m.idle = true })
	_, err := cgroups.Systemd{Unit: "x.scope", Address: address}.Start(t.Context())
	require.ErrorIs(t, err, syscall.EPROTO)
	require.ErrorContains(t, err, "is not in it")
}

// TestSystemdRefuses: each way in which systemd or the bus says no.
func TestSystemdRefuses(t *testing.T) {
	address := startBus(t, "")
	start := func() error {
		_, err := cgroups.Systemd{Unit: "x.scope", Address: address}.Start(t.Context())
		var e *cgroups.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, "x.scope", e.Value)
		return err
	}
	err := start()
	require.ErrorIs(t, err, errors.ErrUnsupported, "nobody has the name")
	require.ErrorContains(t, err, "org.freedesktop.systemd1")

	m := startManager(t, address)
	for result, want := range map[string]error{"failed": syscall.EIO, "timeout": syscall.ETIMEDOUT, "canceled": syscall.ECANCELED, "dependency": syscall.EIO} {
		forger := connect(t, address)
		m.set(func() { m.result, m.forger, m.units = result, forger, map[string]map[string]dbus.Variant{} })
		err := start()
		require.ErrorIs(t, err, want)
		require.ErrorContains(t, err, result)
	}
	for name, want := range map[string]error{"org.freedesktop.DBus.Error.InteractiveAuthorizationRequired": fs.ErrPermission, "org.freedesktop.DBus.Error.InvalidArgs": syscall.EINVAL,
		systemdName + ".NoSuchProcess": syscall.ESRCH, "org.freedesktop.DBus.Error.NoReply": syscall.ETIMEDOUT, "org.example.Strange": syscall.EPROTO} {
		m.set(func() { m.refuse = dbus.NewError(name, []any{"no"}) })
		require.ErrorIs(t, start(), want, name)
	}
	require.NoError(t, m.conn.Close())
	require.ErrorIs(t, start(), errors.ErrUnsupported, "systemd has gone")
}

// TestSystemdForbidden: the bus itself does not let the call through.
func TestSystemdForbidden(t *testing.T) {
	address := startBus(t, `<deny send_destination="org.freedesktop.systemd1" send_interface="org.freedesktop.systemd1.Manager" send_member="StartTransientUnit"/>`)
	startManager(t, address)
	_, err := cgroups.Systemd{Address: address}.Start(t.Context())
	require.ErrorIs(t, err, fs.ErrPermission)
	require.ErrorContains(t, err, "Systemd.User")
}

// TestSystemdHangs: a job that does not end, and a bus that does not speak, end with the context.
func TestSystemdHangs(t *testing.T) {
	address := startBus(t, "")
	m := startManager(t, address)
	m.set(func() { m.hangs, m.result = true, "done" })
	mute, err := net(t)
	require.NoError(t, err)
	before := descriptors(t)
	for _, at := range []string{address, mute} {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		begun := time.Now()
		_, err := cgroups.Systemd{Unit: "x.scope", Address: at}.Start(ctx)
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Less(t, time.Since(begun), 5*time.Second)
	}
	require.LessOrEqual(t, descriptors(t), before)
}

// net is a socket that takes connections, and says nothing.
func net(t *testing.T) (address string, err error) {
	name := filepath.Join(t.TempDir(), "s")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	t.Cleanup(func() { syscall.Close(fd) })
	return "unix:path=" + name, errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: name}), syscall.Listen(fd, 5))
}

// TestSystemdNoBus: an address where nobody listens, none at all, and those that would have a program executed.
func TestSystemdNoBus(t *testing.T) {
	dir := t.TempDir()
	for _, user := range []bool{false, true} {
		t.Setenv("DBUS_SESSION_BUS_ADDRESS", "")
		t.Setenv("XDG_RUNTIME_DIR", dir)
		s := cgroups.Systemd{Unit: "x.scope", User: user}
		if !user {
			s.Address = "unix:path=" + dir + "/none"
		}
		_, err := s.Start(t.Context())
		require.ErrorIs(t, err, errors.ErrUnsupported)
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.ErrorContains(t, err, "no bus")
	}
	for _, bad := range []string{"unixexec:path=/bin/true", "tcp:host=localhost,port=1", "autolaunch:", "unix:", "unix:path=", "unix:path=%zz", "unix:path=a%00b", "x"} {
		t.Setenv("DBUS_SESSION_BUS_ADDRESS", bad)
		_, err := cgroups.Systemd{Unit: "x.scope", User: true}.Start(t.Context())
		require.ErrorIs(t, err, syscall.EINVAL, bad)
	}
}

func TestSystemdBadNames(t *testing.T) {
	for _, s := range []cgroups.Systemd{{Unit: "x"}, {Unit: "x.service"}, {Unit: ".scope"}, {Unit: "../x.scope"}, {Unit: "a/b.scope"}, {Unit: "a b.scope"}, {Unit: "ä.scope"}, {Unit: "a\n.scope"},
		{Unit: strings.Repeat("x", 300) + ".scope"}, {Slice: "x"}, {Slice: "x.scope"}, {Slice: "a/b.slice"}, {Unit: "a.slice", Slice: "b.slice"}, {Unit: "a.slice", PIDs: []int{1}}} {
		_, err := s.Start(t.Context())
		var e *cgroups.NameError
		require.ErrorAs(t, err, &e, "%+v", s)
		require.ErrorIs(t, err, syscall.EINVAL)
	}
	for _, pid := range []int{0, -1} {
		_, err := cgroups.Systemd{PIDs: []int{pid}}.Start(t.Context())
		require.ErrorIs(t, err, syscall.EINVAL, fmt.Sprint(pid))
	}
	_, err := cgroups.Systemd{Unit: "x"}.Open(t.Context())
	require.ErrorIs(t, err, syscall.EINVAL)
}
