package namespaces

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

func TestSetText(t *testing.T) {
	for _, c := range []struct {
		set  Set
		text string
	}{
		{0, "none"}, {PID, "pid"}, {Net | PID, "pid|net"}, {All, "user|pid|mount|net|ipc|uts|cgroup|time"}, {Net | 1, "net|0x1"}, {1 << 40, "0x10000000000"},
	} {
		require.Equal(t, c.text, c.set.String())
	}
}

func TestParseSet(t *testing.T) {
	for text, want := range map[string]Set{
		"pid,net": PID | Net, "pid|net": PID | Net, " mnt , user": Mount | User, "mount": Mount, "network": Net, "net": Net,
		"all": All, "none": 0, "time": Time, "cgroup,ipc,uts": Cgroup | IPC | UTS, "pid,pid": PID,
	} {
		got, err := ParseSet(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", ",", "pid,", "PID", "pid net", "0x20000000", "netns", "none of them"} {
		_, err := ParseSet(text)
		var e *SetError
		require.ErrorAs(t, err, &e, text)
		require.ErrorIs(t, err, unix.EINVAL)
	}
}

func TestSetJSON(t *testing.T) {
	var v struct{ Kinds Set }
	require.NoError(t, json.Unmarshal([]byte(`{"Kinds":"mnt,pid"}`), &v))
	require.Equal(t, Mount|PID, v.Kinds)
	b, err := json.Marshal(v)
	require.NoError(t, err)
	require.JSONEq(t, `{"Kinds":"pid|mount"}`, string(b))
	require.ErrorIs(t, json.Unmarshal([]byte(`{"Kinds":"x"}`), &v), unix.EINVAL)
	v.Kinds = 1
	_, err = json.Marshal(v)
	require.ErrorIs(t, err, unix.EINVAL)
}

func TestSetEach(t *testing.T) {
	require.Equal(t, []Set{PID, Net, UTS}, slices.Collect((UTS | Net | PID).Each()))
	require.Len(t, slices.Collect(All.Each()), 8)
	for k := range All.Each() {
		require.True(t, k.single())
		require.Equal(t, k.claim(), k.String()+" namespace")
		break
	}
	require.False(t, (UTS | Net).single())
	require.False(t, Set(0).single())
	require.False(t, Set(1).single())
}

func TestUnknownBits(t *testing.T) {
	for _, s := range []Set{1, PID | 0x100, unix.CLONE_VM, 1 << 63} {
		err := plan.Build(s).Err()
		var e *SetError
		require.ErrorAs(t, err, &e)
		require.ErrorIs(t, err, unix.EINVAL)
		require.Contains(t, err.Error(), "namespaces.Set")
	}
}

// The constants are the kernel's flags.
func TestFlags(t *testing.T) {
	for k := range All.Each() {
		p := plan.Build(k)
		require.NoError(t, p.Err())
		require.Equal(t, uint64(k), p.Cloned()&uint64(k))
	}
}

func FuzzParseSet(f *testing.F) {
	for _, s := range []string{"pid,net", "all", "none", "", "mnt|user", "0x1", "pid,,net"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSet(text)
		if err != nil {
			require.ErrorIs(t, err, unix.EINVAL)
			require.Zero(t, s)
			return
		}
		require.NoError(t, s.check())
		again, err := ParseSet(s.String())
		require.NoError(t, err)
		require.Equal(t, s, again)
	})
}

func TestGoldenSet(t *testing.T) {
	golden(t, "set", PID|Net|UTS|IPC|Cgroup)
	golden(t, "mount", Mount, Mount|PID)
	golden(t, "mount-root", Mount, plan.Func(func(p *plan.Plan) error { return p.Claim(plan.RootDir) }))
	golden(t, "time", Time, Time)
}

func TestNewNamespaces(t *testing.T) {
	asRoot(t)
	for k := range All.Each() {
		t.Run(k.String(), func(t *testing.T) {
			hasNamespace(t, k)
			if k == PID {
				require.Equal(t, "1", says(t, "echo $$", k))
				return
			}
			require.NotEqual(t, link(t, 0, k), says(t, "readlink /proc/self/ns/"+k.kind().file, k))
		})
	}
}

// A mount inside is not seen outside, even where the host's mounts are shared.
func TestMountsStayInside(t *testing.T) {
	asRoot(t)
	dir := t.TempDir()
	shared := func() error { return unix.Mount("tmpfs", dir, "tmpfs", 0, "") }
	require.NoError(t, shared())
	defer unix.Unmount(dir, unix.MNT_DETACH)
	require.NoError(t, unix.Mount("", dir, "", unix.MS_SHARED, ""))
	require.NoError(t, unix.Mkdir(dir+"/m", 0o755))
	mount := plan.Func(func(p *plan.Plan) error {
		p.Child(plan.Mounts, plan.Call("mount", unix.SYS_MOUNT, plan.Str("inside"), plan.Str(dir+"/m"), plan.Str("tmpfs"), plan.Int(0), plan.Null()))
		return nil
	})
	require.Contains(t, says(t, "cat /proc/self/mounts", Mount, mount), "inside "+dir+"/m")
	require.NotContains(t, readFile(t, "/proc/self/mounts"), "inside "+dir)
}

func TestUserAlone(t *testing.T) {
	if !asOrdinary(t) {
		return
	}
	hasUserNamespaces(t)
	out := says(t, "id -u; id -g; cat /proc/self/setgroups; uname -n", User, Hostname("inside"))
	require.Equal(t, "0\n0\ndeny\ninside", out)
}

func TestWithoutPrivilege(t *testing.T) {
	if !asOrdinary(t) {
		return
	}
	for k := range (All &^ User &^ Time).Each() {
		err := refused(t, k)
		require.ErrorIs(t, err, unix.EPERM, k)
		require.Contains(t, err.Error(), "CAP_SYS_ADMIN, or namespaces.User")
	}
	require.ErrorIs(t, refused(t, Time), unix.EPERM)
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := readAll(name)
	require.NoError(t, err)
	return strings.TrimSpace(b)
}
