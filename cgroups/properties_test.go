package cgroups

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/stretchr/testify/require"
)

func anything(string) bool { return true }

// knowing is a systemd that has all our properties.
func knowing(without ...string) state {
	all := state{}
	for _, names := range []map[string]string{numberProperties, deviceProperties} {
		for _, name := range names {
			all[name] = dbus.MakeVariant(uint64(0))
		}
	}
	for _, name := range []string{"CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec", "AllowedCPUs", "AllowedMemoryNodes"} {
		all[name] = dbus.MakeVariant(uint64(0))
	}
	for _, name := range without {
		delete(all, name)
	}
	return all
}

func told(t *testing.T, s *simulated, l Limits, known state, given func(string) bool) (lines []string, err error) {
	t.Helper()
	at, err := s.look(0)
	require.NoError(t, err)
	all, err := l.properties(at, known, given)
	for _, p := range all {
		lines = append(lines, strings.ReplaceAll(fmt.Sprintf("%s=%s:%v", p.Name, p.Value.Signature(), p.Value.Value()), " ", "_"))
	}
	return lines, err
}

// TestProperties: what systemd is told, on both versions.
func TestProperties(t *testing.T) {
	l := many
	l.MemoryHigh, l.MemoryMin, l.CPUIdle = 32*MiB, None, 0
	l.IO = append(slices.Clone(l.IO), IO{Device: "7:1", WriteBPS: NoLimit, Latency: time.Millisecond})
	two, err := told(t, newSimulated(t, true), l, knowing(), anything)
	require.NoError(t, err)
	require.Equal(t, strings.Fields(`MemoryMax=t:67108864 MemorySwapMax=t:1048576 MemoryHigh=t:33554432 MemoryLow=t:1048576 MemoryMin=t:0 CPUWeight=t:100 TasksMax=t:64 IOWeight=t:500
		CPUQuotaPerSecUSec=t:1500000 CPUQuotaPeriodUSec=t:100000 AllowedCPUs=ay:[3] AllowedMemoryNodes=ay:[1]
		IOReadBandwidthMax=a(st):[{/dev/block/8:0_1048576}] IOWriteIOPSMax=a(st):[{/dev/block/8:0_100}] IODeviceWeight=a(st):[{/dev/block/8:0_200}]
		IOWriteBandwidthMax=a(st):[{/dev/block/7:1_18446744073709551615}] IODeviceLatencyTargetUSec=a(st):[{/dev/block/7:1_1000}]`), two)
	l = many
	l.IO = append(slices.Clone(l.IO), IO{Device: "7:1", WriteBPS: NoLimit})
	one, err := told(t, newSimulated(t, false), l, knowing(), anything)
	require.NoError(t, err)
	require.Equal(t, strings.Fields(`MemoryLimit=t:67108864 CPUShares=t:1024 TasksMax=t:64 BlockIOWeight=t:59 CPUQuotaPeriodUSec=t:100000 CPUQuotaPerSecUSec=t:1500000 CPUQuotaPeriodUSec=t:100000
		BlockIOReadBandwidth=a(st):[{/dev/block/8:0_1048576}] BlockIODeviceWeight=a(st):[{/dev/block/8:0_29}] BlockIOWriteBandwidth=a(st):[{/dev/block/7:1_18446744073709551615}]`), one)
	for want, l := range map[string]Limits{"CPUWeight=t:0": {CPUIdle: On}, "CPUWeight=t:100": {CPUIdle: Off}, "CPUWeight=t:7": {CPUIdle: Off, CPUWeight: 7}, "MemoryMax=t:18446744073709551615": {Memory: NoLimit}} {
		got, err := told(t, newSimulated(t, true), l, knowing(), anything)
		require.NoError(t, err)
		require.Equal(t, want, got[0])
		require.Equal(t, want, got[len(got)-1], "not twice with different values")
	}
}

// TestPropertiesRefused: nothing is left to be written over.
func TestPropertiesRefused(t *testing.T) {
	nothing := func(string) bool { return false }
	for _, c := range []struct {
		v2    bool
		l     Limits
		known state
		given func(string) bool
		named string
	}{
		{true, Limits{OOMGroup: On}, knowing(), anything, "OOMGroup"},
		{true, Limits{Files: []File{{"memory.max", "5"}}}, knowing(), anything, "memory.max"},
		{true, Limits{CPUs: 1}, knowing("CPUQuotaPeriodUSec"), anything, "CPUQuotaPeriodUSec"},
		{true, Limits{ClampMax: 50}, knowing(), nothing, "ClampMax"},
		{true, Limits{Partition: "root"}, knowing(), nothing, "Partition"},
		{true, Limits{PIDs: 5}, knowing("TasksMax"), nothing, "PIDs"},
		{false, Limits{Devices: DockerDevices()}, knowing(), anything, "Devices"},
		{false, Limits{OOMKill: Off}, knowing(), nothing, "OOMKill"},
		{false, Limits{RDMA: []RDMA{{"mlx5_0", 1, 1}}}, knowing(), anything, "rdma"},
	} {
		got, err := told(t, newSimulated(t, c.v2), c.l, c.known, c.given)
		require.ErrorIs(t, err, errors.ErrUnsupported, c.named)
		require.ErrorContains(t, err, c.named)
		require.Empty(t, got)
	}
	for _, l := range []Limits{{PIDs: 5}, {ClampMax: 50, Partition: "root", CPUBurst: 1000}, {Devices: DockerDevices()}, {Depth: 1, HugePages: []HugePages{{"2MB", 5}}}} {
		got, err := told(t, newSimulated(t, true), l, knowing("TasksMax"), anything)
		require.NoError(t, err, "by the file alone")
		require.Empty(t, got)
	}
}

// TestQuotaProperties: systemd multiplies with the period, divides by a second and cuts off. The quota comes out as it went in.
func TestQuotaProperties(t *testing.T) {
	for _, period := range []uint64{1, 1000, 1000000} {
		require.LessOrEqual(t, inSecond(math.MaxUint64, period), uint64(math.MaxUint64-1), "no limit would be one more")
	}
	for _, per := range []int64{1000, 1001, 3333, 20000, 99999, 100000, 123457, 999999, 1000000} {
		for quota := int64(1000); quota < 1<<53; quota = quota*17/13 + 1 {
			l := Limits{CPUQuota: time.Duration(quota) * time.Microsecond, CPUPeriod: time.Duration(per) * time.Microsecond}
			p := l.quotaProperties()
			second := p[0].Value.Value().(uint64)
			if second > math.MaxUint64/uint64(per) {
				break
			}
			require.EqualValues(t, quota, second*uint64(per)/1000000, "%d in %d", quota, per)
			require.EqualValues(t, per, p[1].Value.Value())
		}
	}
}

func TestBitmap(t *testing.T) {
	require.Equal(t, []byte{0b1001111}, bitmap("0-3,6"))
	require.Equal(t, []byte{0, 0, 0b11}, bitmap("16-17"))
	require.Len(t, bitmap("65535"), 8192)
}

// FuzzBitmap: each list that passes for one has those bits set that it names, and no byte too many.
func FuzzBitmap(f *testing.F) {
	for _, s := range []string{"0", "0-3,6", "7,5", "3,3", "1-1,65535"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !isList(s) || len(s) > 100 {
			return
		}
		bits := bitmap(s)
		require.NotZero(t, bits[len(bits)-1])
		for part := range strings.SplitSeq(s, ",") {
			var a, b int
			if n, _ := fmt.Sscanf(part, "%d-%d", &a, &b); n == 1 {
				b = a
			}
			for _, n := range []int{a, b, (a + b) / 2} {
				require.NotZero(t, bits[n/8]&(1<<(n%8)), "%d", n)
			}
		}
	})
}

// TestLacks: what systemd says it has is compared with what it was told.
func TestLacks(t *testing.T) {
	entry := func(n uint64) property {
		return property{"IOReadBandwidthMax", dbus.MakeVariant([]perDevice{{"/dev/block/8:0", n}})}
	}
	has := state{"TasksMax": dbus.MakeVariant(uint64(5)), "AllowedCPUs": dbus.MakeVariant([]byte{3, 0, 0, 0}),
		"IOReadBandwidthMax": dbus.MakeVariant([][]any{{"/dev/sda", uint64(1)}, {"/dev/block/8:0", uint64(7)}})}
	require.Empty(t, has.lacks([]property{{"TasksMax", dbus.MakeVariant(uint64(5))}, {"AllowedCPUs", dbus.MakeVariant([]byte{3})}, entry(6), entry(7)}))
	require.Equal(t, "TasksMax", has.lacks([]property{{"TasksMax", dbus.MakeVariant(uint64(6))}}))
	require.Equal(t, "AllowedCPUs", has.lacks([]property{{"AllowedCPUs", dbus.MakeVariant([]byte{1})}}))
	require.Equal(t, "IOReadBandwidthMax", has.lacks([]property{entry(8)}))
	require.Equal(t, "IOReadBandwidthMax", has.lacks([]property{entry(math.MaxUint64)}))
	require.Equal(t, "MemoryMax", has.lacks([]property{{"MemoryMax", dbus.MakeVariant(uint64(1))}}))
	require.Equal(t, "IOReadBandwidthMax", state{}.lacks([]property{entry(8)}))
	require.Empty(t, state{}.lacks([]property{entry(math.MaxUint64)}), "no limit is not listed")
}

// TestBFQ: a kernel whose only scheduler with weights is BFQ has another file and another scale. 100 is normal in both.
func TestBFQ(t *testing.T) {
	s := newSimulated(t, true)
	g, err := s.openPath("/")
	require.NoError(t, err)
	defer g.Close()
	made, err := g.make("g", nil)
	require.NoError(t, err)
	dir := filepath.Join(s.dir, "g")
	for _, name := range v2Files { // but those that a group is made with
		if !strings.HasPrefix(name, "cgroup.") {
			require.NoError(t, os.Remove(filepath.Join(dir, name)))
		}
	}
	require.NoError(t, os.Remove(filepath.Join(dir, "cgroup.max.descendants")))
	require.NoError(t, os.Remove(filepath.Join(dir, "cgroup.max.depth")))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "io.bfq.weight"), nil, 0o644))
	for weight, want := range map[int64]string{1: "1", 100: "100", 10000: "1000"} {
		s.writes = nil
		require.NoError(t, made.Set(Limits{IOWeight: weight, IO: []IO{{Device: "8:0", Weight: weight}}}))
		require.Equal(t, []string{"io.bfq.weight=" + want, "io.bfq.weight=8:0 " + want}, s.writes)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "io.bfq.weight"), []byte("default "+want+"\n"), 0o644))
		l, err := made.Limits()
		require.NoError(t, err)
		require.Equal(t, weight, l.IOWeight)
	}
	require.NoError(t, made.Delete())
}
