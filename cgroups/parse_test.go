package cgroups

import (
	"errors"
	"math"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/plan"
)

func TestParseBytes(t *testing.T) {
	for s, want := range map[string]int64{"512m": 512 * MiB, "1Gi": GiB, "1.5g": 3 * GiB / 2, "1GiB": GiB, "64kb": 64 * KiB, "7": 7, "7b": 7, "7B": 7, "0": 0, "1 GB": GiB, "2t": 2 * TiB, "1p": 1 << 50,
		"7e": 7 << 60, "0.3k": 307, "max": NoLimit, "9223372036854775806": math.MaxInt64 - 1} {
		got, err := ParseBytes(s)
		require.NoError(t, err, s)
		require.Equal(t, want, got, s)
	}
	for _, s := range []string{"", "-1", "-1m", "1x", "m", "1.2.3g", ".5g", "5.g", "9223372036854775807", "8e", "99999999999999999999g", "1mm", "1ib", "1i", "1bi", "1 ", "0x10", "1e3", "NaN", "+1", "1  g", "1,5g", "1_000"} {
		_, err := ParseBytes(s)
		var e *LimitError
		require.ErrorAs(t, err, &e, s)
		require.ErrorIs(t, err, syscall.EINVAL)
		require.Equal(t, s, e.Value)
	}
}

func TestParseQuantity(t *testing.T) {
	for s, want := range map[string]int64{"512Mi": 512 * MiB, "512M": 512e6, "1e3": 1000, "1E3": 1000, "1500m": 2, "1.5Gi": 3 * GiB / 2, "129e6": 129e6, "123Mi": 123 * MiB, "7": 7, "1k": 1000, "1n": 1, "0": 0, "1e-30": 1, "2E": 2e18} {
		got, err := ParseQuantity(s)
		require.NoError(t, err, s)
		require.Equal(t, want, got, s)
	}
	for _, s := range []string{"", "-1", "1K", "1mi", "1kb", "10E", "1e40", "1e999999999", "e3", "1 Mi", "NaN", "Inf", "0x1p3"} {
		_, err := ParseQuantity(s)
		var e *LimitError
		require.ErrorAs(t, err, &e, s)
	}
}

func TestParseCPUs(t *testing.T) {
	for s, want := range map[string]float64{"250m": 0.25, "1.5": 1.5, "2": 2, "0": 0, "1e1": 10, "100u": 0.0001} {
		got, err := ParseCPUs(s)
		require.NoError(t, err, s)
		require.Equal(t, want, got, s)
	}
	for _, s := range []string{"", "-1", "NaN", "Inf", "1e30", "1e7", "x", "1x", "2000000", "0x2"} {
		_, err := ParseCPUs(s)
		var e *LimitError
		require.ErrorAs(t, err, &e, s)
	}
}

func TestParseDevice(t *testing.T) {
	for _, s := range []string{"c 1:3 rwm", "b 8:* r", "a *:* rwm", "c *:* m", "c 4294967295:0 w"} {
		d, err := ParseDevice(s)
		require.NoError(t, err)
		require.Equal(t, s, d.String())
	}
	for _, s := range []string{"", "c", "c 1 rwm", "d 1:3 r", "c 1:3", "c 1:3 x", "c -1:3 r", "c 01:3 r", "c 4294967296:0 r", "c 1:3 rr", "c  1:3 r", "c 1:3 r\n", "c 1:3:4 r"} {
		_, err := ParseDevice(s)
		require.ErrorIs(t, err, syscall.EINVAL, s)
	}
	d, err := DeviceAt("/dev/null")
	require.NoError(t, err)
	require.Equal(t, "c 1:3 rwm", d.String())
	_, err = DeviceAt("/etc/passwd")
	require.ErrorIs(t, err, syscall.EINVAL)
	_, err = DeviceAt("/dev/nothing")
	require.ErrorIs(t, err, syscall.ENOENT)
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"512m", "1Gi", "1.5g", "250m", "-1", "1e999999999", "max", "99999999999999999999", "0.0000000001k", "NaN", "1e-30", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseBytes(s)
		checkParsed(t, s, float64(n), err)
		if err == nil && n != NoLimit {
			digits, unit := split(s)
			r, ok := new(big.Rat).SetString(digits)
			if !ok || r.Sign() > 0 && n > 0 && unit == "" && r.Cmp(new(big.Rat).SetInt64(n)) < 0 {
				t.Errorf("%q is %d", s, n)
			}
		}
		q, err := ParseQuantity(s)
		checkParsed(t, s, float64(q), err)
		c, err := ParseCPUs(s)
		checkParsed(t, s, c, err)
	})
}

func checkParsed(t *testing.T, s string, n float64, err error) {
	t.Helper()
	var e *LimitError
	if err != nil && !errors.As(err, &e) {
		t.Errorf("%q: %T", s, err)
	}
	if n < 0 || math.IsNaN(n) || math.IsInf(n, 0) || err != nil && n != 0 {
		t.Errorf("%q: %v, %v", s, n, err)
	}
}

// FuzzName: whatever name a group is given, nothing happens outside the directory of the group above.
func FuzzName(f *testing.F) {
	for _, s := range []string{"a", "..", "../x", "a/../../b", "/", ".", "", "a\x00b", "a\nb", "cgroup.procs", strings.Repeat("x", 256), "a/b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if checkName(s) == nil && (s == "" || s == "." || s == ".." || strings.ContainsAny(s, "/\x00\n") || filepath.Base(s) != s || len(s) > 255) {
			t.Errorf("%q is accepted", s)
		}
		if checkPath(s) == nil && (filepath.Clean(s) != s || s[0] != '/' || strings.Contains(s, "..") && strings.Contains("/"+s+"/", "/../")) {
			t.Errorf("path %q is accepted", s)
		}
		if (&Limits{Files: []File{{s, "1"}}}).check() == nil && (strings.ContainsAny(s, "/\x00\n") || strings.Contains(s, "..") || strings.HasSuffix(s, "release_agent") && !strings.Contains(s, ".") || strings.HasPrefix(s, "cgroup.procs")) {
			t.Errorf("file %q is accepted", s)
		}
	})
}

// FuzzMounts: mountinfo and /proc/PID/cgroup have names in them that others choose.
func FuzzMounts(f *testing.F) {
	f.Add("1 2 0:3 /docker/x /sys/fs/cgroup/memory rw shared:1 - cgroup cgroup rw,memory\n", "1:memory:/docker/x/y\n")
	f.Add("1 2 0:3 / /a\\040b rw - cgroup2 cgroup2 rw", "0::/../x")
	f.Add("1 2 0:3 /\\ / rw - cgroup x cpu", "1:cpu:/\n1:cpu:/b (deleted)")
	f.Fuzz(func(t *testing.T, mounts, groups string) {
		h := &host{kernel: realKernel(), proc: func(name string) ([]byte, error) {
			if strings.HasSuffix(name, "mountinfo") {
				return []byte(mounts), nil
			}
			return []byte(groups), nil
		}}
		if strings.Contains(mounts, "cgroup2") { // would be opened
			h.v1 = true
		}
		all, err := h.look(0)
		if err == nil && len(all) == 0 {
			t.Error("no hierarchy and no error")
		}
		for _, y := range all {
			if y.own == "" || y.own[0] != '/' || strings.Contains(y.own+"/", "/../") {
				t.Errorf("group %q", y.own)
			}
		}
	})
}

// FuzzRead: whatever the kernel's files say, reading them is no panic.
func FuzzRead(f *testing.F) {
	f.Add("8:0 rbytes=1 wbytes=2\nmax 100000\nsome avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", "default 100")
	f.Add("max", "8:0 Read 99999999999999999999999")
	f.Fuzz(func(t *testing.T, a, b string) {
		tmp := t.TempDir()
		for i, name := range append(v2Files, "cpu.pressure") {
			text := a
			if i%2 == 0 {
				text = b
			}
			require.NoError(t, os.WriteFile(filepath.Join(tmp, name), []byte(text), 0o600))
		}
		df, err := os.Open(tmp)
		require.NoError(t, err)
		y := &hierarchy{kernel: realKernel(), mount: tmp, v2: true, controllers: strings.Fields(content["cgroup.controllers"])}
		g := &Group{dirs: []dir{{hierarchy: y, path: "/", f: df}}}
		defer g.Close()
		g.Stats()
		g.Limits()
		g.Procs()
		g.Pressure(CPU)
		g.Frozen()
	})
}

// TestGolden: plans, word for word, on a host of either version. No privilege is needed.
func TestGolden(t *testing.T) {
	for name, v2 := range map[string]bool{"v2": true, "v1": false} {
		s := newSimulated(t, v2)
		l := Limits{Name: "web", Memory: 512 * MiB, Swap: None, CPUs: 1.5, PIDs: 64}
		if v2 {
			l.Devices = []Device{{Kind: 'c', Major: 1, Minor: 3, Access: "rwm"}}
		}
		p := plan.Build(plan.Func(func(p *plan.Plan) error { return l.apply(p, s.host) }))
		require.NoError(t, p.Err())
		var b strings.Builder
		for line := range strings.Lines(p.String()) {
			if strings.Contains(line, "plan.Func") || strings.Contains(line, "clone3") {
				line = strings.ReplaceAll(strings.Join(strings.Fields(line)[1:], " "), s.dir, "/sys/fs/cgroup")
				b.WriteString(strings.ReplaceAll(line, filepath.Base(s.dir)+" group", "cgroup group") + "\n")
			}
		}
		file := filepath.Join("testdata", name+".golden")
		if os.Getenv("CAISSON_UPDATE") != "" {
			require.NoError(t, os.MkdirAll("testdata", 0o755))
			require.NoError(t, os.WriteFile(file, []byte(b.String()), 0o644))
		}
		want, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, string(want), b.String())
	}
}
