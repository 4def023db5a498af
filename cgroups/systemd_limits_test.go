package cgroups_test

import (
	"errors"
	"math"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/cgroups"
)

// signatures are the properties that systemd's scopes and slices have of those that we know, as org.freedesktop.systemd1(5) lists them.
var signatures = map[string]string{"Description": "s", "CollectMode": "s", "PIDs": "au", "Delegate": "b", "Slice": "s",
	"MemoryMax": "t", "MemoryHigh": "t", "MemoryLow": "t", "MemoryMin": "t", "MemorySwapMax": "t", "TasksMax": "t", "CPUWeight": "t", "IOWeight": "t",
	"CPUQuotaPerSecUSec": "t", "CPUQuotaPeriodUSec": "t", "AllowedCPUs": "ay", "AllowedMemoryNodes": "ay",
	"IODeviceWeight": "a(st)", "IOReadBandwidthMax": "a(st)", "IOWriteBandwidthMax": "a(st)", "IOReadIOPSMax": "a(st)", "IOWriteIOPSMax": "a(st)", "IODeviceLatencyTargetUSec": "a(st)",
	"MemoryLimit": "t", "CPUShares": "t", "BlockIOWeight": "t", "BlockIODeviceWeight": "a(st)", "BlockIOReadBandwidth": "a(st)", "BlockIOWriteBandwidth": "a(st)"}

// take takes properties, all or none.
func (m *manager) take(unit map[string]dbus.Variant, properties []property) *dbus.Error {
	for _, p := range properties {
		switch want := signatures[p.Name]; {
		case want == "" || p.Name == m.lacks:
			return dbus.NewError("org.freedesktop.DBus.Error.PropertyReadOnly", []any{"Cannot set property " + p.Name + ", or unknown property."})
		case want != p.Value.Signature().String():
			return dbus.NewError("org.freedesktop.DBus.Error.InvalidArgs", []any{p.Name + " is " + want + " and not " + p.Value.Signature().String()})
		}
	}
	for _, p := range properties {
		if p.Name != m.loses {
			unit[p.Name] = p.Value
		}
	}
	return nil
}

func (m *manager) SetUnitProperties(name string, runtime bool, properties []property) *dbus.Error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !runtime {
		return dbus.NewError("org.freedesktop.DBus.Error.InvalidArgs", []any{"this would outlive the next boot"})
	}
	return m.take(m.units[name], properties)
}

// GetAll answers all properties of a unit. Before it answers, systemd writes the files.
func (g group) GetAll(kind string) (map[string]dbus.Variant, *dbus.Error) {
	g.m.mu.Lock()
	defer g.m.mu.Unlock()
	all := map[string]dbus.Variant{}
	for name, signature := range signatures {
		if v, ok := g.m.units[g.name][name]; ok {
			all[name] = v
		} else if name != g.m.lacks {
			all[name] = dbus.MakeVariantWithSignature(map[string]any{"s": "", "b": false, "t": uint64(math.MaxUint64), "ay": []byte{}, "au": []uint32{}, "a(st)": []struct {
				Path string
				N    uint64
			}{}}[signature], dbus.ParseSignatureMust(signature))
		}
	}
	if path.Ext(g.name) == ".scope" {
		all["DelegateControllers"] = dbus.MakeVariant([]string{"cpu", "cpuacct", "cpuset", "io", "blkio", "memory", "devices", "pids"})
	}
	g.m.write(g.name)
	return all, nil
}

// reload is systemctl daemon-reload: systemd writes all that it manages.
func (m *manager) reload() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range m.units {
		m.write(name)
	}
}

// write writes the files of those properties that matter here: what they say, or the default.
func (m *manager) write(name string) {
	g, err := cgroups.Open(base + "/" + name)
	if err != nil {
		return
	}
	defer g.Close()
	for _, dir := range g.Directories() {
		for _, f := range []struct {
			property, file, none string
		}{{"MemoryMax", "memory.max", "max"}, {"MemoryLimit", "memory.limit_in_bytes", "-1"}, {"TasksMax", "pids.max", "max"}, {"CPUWeight", "cpu.weight", "100"}, {"CPUShares", "cpu.shares", "1024"}, {"MemoryLow", "memory.low", "0"}} {
			if _, err := os.Stat(filepath.Join(dir, f.file)); err != nil || f.property == m.lacks {
				continue
			}
			text := f.none
			if n, ok := m.units[name][f.property].Value().(uint64); ok && n != math.MaxUint64 {
				text = strconv.FormatUint(n, 10)
			}
			if err := os.WriteFile(filepath.Join(dir, f.file), []byte(text), 0); err != nil {
				m.t.Error(err)
			}
		}
	}
}

// limits reads the limits of a unit.
func limits(t *testing.T, u *cgroups.Unit) cgroups.Limits {
	t.Helper()
	l, err := u.Limits()
	require.NoError(t, err)
	return l
}

// TestSystemdLimits: the limits of a unit are in the files, and still there when systemd has written its own; what is written to the files alone is not.
func TestSystemdLimits(t *testing.T) {
	managed(t)
	address := startBus(t, "")
	m := startManager(t, address)
	cmd := sleeper(t)
	at := cgroups.Systemd{Unit: "limited.scope", PIDs: []int{cmd.Process.Pid}, Address: address, Limits: cgroups.Limits{Memory: 64 * cgroups.MiB, PIDs: 50, CPUs: 0.5, CPUShares: 512}}
	u, err := at.Start(t.Context())
	require.NoError(t, err)
	holds := func(memory, pids int64, cpus float64) {
		t.Helper()
		for range 2 {
			l := limits(t, u)
			require.Equal(t, []any{memory, pids, cpus}, []any{l.Memory, l.PIDs, l.CPUs})
			m.reload()
		}
	}
	holds(64*cgroups.MiB, 50, 0.5)
	asked := m.asked("limited.scope")
	memory, weight := "MemoryMax", "CPUWeight"
	if !unified() {
		memory, weight = "MemoryLimit", "CPUShares"
	}
	require.EqualValues(t, 64*cgroups.MiB, asked[memory])
	require.EqualValues(t, 50, asked["TasksMax"])
	require.EqualValues(t, 500000, asked["CPUQuotaPerSecUSec"])
	require.EqualValues(t, 100000, asked["CPUQuotaPeriodUSec"])
	require.NotZero(t, asked[weight])

	require.NoError(t, u.Set(t.Context(), cgroups.Limits{Memory: 32 * cgroups.MiB, CPUQuota: 70 * time.Millisecond, CPUPeriod: 20 * time.Millisecond}))
	holds(32*cgroups.MiB, 50, 3.5)
	require.NoError(t, u.Set(t.Context(), cgroups.Limits{Memory: cgroups.NoLimit, PIDs: 60, CPUs: cgroups.NoLimit}))
	holds(cgroups.NoLimit, 60, cgroups.NoLimit)
	require.EqualValues(t, uint64(math.MaxUint64), m.asked("limited.scope")["CPUQuotaPerSecUSec"])

	require.NoError(t, u.Group.Set(cgroups.Limits{PIDs: 70}))
	require.EqualValues(t, 70, limits(t, u).PIDs)
	m.reload()
	require.EqualValues(t, 60, limits(t, u).PIDs, "the reason for all this")
	require.NoError(t, u.Stop(t.Context()))
	require.Error(t, cmd.Wait(), "killed")
}

// TestSystemdSliceLimits: a slice, whose processes are those of other units.
func TestSystemdSliceLimits(t *testing.T) {
	managed(t)
	address := startBus(t, "")
	m := startManager(t, address)
	u, err := cgroups.Systemd{Unit: "caisson-limited.slice", Address: address, Limits: cgroups.Limits{PIDs: 50}}.Start(t.Context())
	require.NoError(t, err)
	m.reload()
	require.EqualValues(t, 50, limits(t, u).PIDs)
	err = u.Set(t.Context(), cgroups.Limits{ClampMax: 50})
	require.ErrorIs(t, err, errors.ErrUnsupported, "nothing keeps the controller on")
	require.ErrorContains(t, err, "ClampMax")
	require.NoError(t, u.Stop(t.Context()))
}

// TestSystemdLimitsRefused: what would not hold is refused before there is a unit.
func TestSystemdLimitsRefused(t *testing.T) {
	root(t)
	address := startBus(t, "")
	m := startManager(t, address)
	refused := func(l cgroups.Limits, want error, named string) {
		t.Helper()
		_, err := cgroups.Systemd{Unit: "x.scope", Address: address, Limits: l}.Start(t.Context())
		require.ErrorIs(t, err, want)
		require.ErrorContains(t, err, named)
		require.Empty(t, m.asked("x.scope"))
	}
	refused(cgroups.Limits{Memory: -5}, syscall.EINVAL, "Memory")
	refused(cgroups.Limits{Files: []cgroups.File{{"pids.max", "5"}}}, errors.ErrUnsupported, "pids.max")
	if unified() {
		refused(cgroups.Limits{OOMGroup: cgroups.On}, errors.ErrUnsupported, "OOMGroup")
		refused(cgroups.Limits{OOMKill: cgroups.Off}, errors.ErrUnsupported, "OOMKill")
	} else {
		refused(cgroups.Limits{Devices: cgroups.DockerDevices()}, errors.ErrUnsupported, "Devices")
		refused(cgroups.Limits{MemoryHigh: 1 << 20}, errors.ErrUnsupported, "MemoryHigh")
	}
	m.set(func() { m.lacks = "CPUQuotaPeriodUSec" })
	refused(cgroups.Limits{CPUs: 1}, errors.ErrUnsupported, "CPUQuotaPeriodUSec")
}

// TestSystemdOlder: a systemd without a property does not write its file either, so the file alone holds.
func TestSystemdOlder(t *testing.T) {
	managed(t)
	address := startBus(t, "")
	m := startManager(t, address)
	m.set(func() { m.lacks = "TasksMax" })
	cmd := sleeper(t)
	at := cgroups.Systemd{Unit: "older.scope", PIDs: []int{cmd.Process.Pid}, Address: address, Limits: cgroups.Limits{PIDs: 50}}
	u, err := at.Start(t.Context())
	require.NoError(t, err)
	m.reload()
	require.EqualValues(t, 50, limits(t, u).PIDs)
	require.NotContains(t, m.asked("older.scope"), "TasksMax")
	require.NoError(t, u.Stop(t.Context()))
	require.Error(t, cmd.Wait(), "killed")
}

// TestSystemdForgets: a systemd that says yes, and has not taken the value, is not believed; a slice that could not be set up is removed.
func TestSystemdForgets(t *testing.T) {
	managed(t)
	address := startBus(t, "")
	m := startManager(t, address)
	m.set(func() { m.loses = "TasksMax" })
	at := cgroups.Systemd{Unit: "caisson-forgotten.slice", Address: address, Limits: cgroups.Limits{PIDs: 50}}
	_, err := at.Start(t.Context())
	require.ErrorIs(t, err, syscall.EPROTO)
	require.ErrorContains(t, err, "TasksMax")
	require.Empty(t, m.asked("caisson-forgotten.slice"))
	_, err = cgroups.Open(base + "/caisson-forgotten.slice")
	require.ErrorIs(t, err, os.ErrNotExist)
}
