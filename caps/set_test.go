package caps

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The numbers are the kernel's.
func TestNumbers(t *testing.T) {
	for set, n := range map[Set]int{Chown: unix.CAP_CHOWN, DacReadSearch: unix.CAP_DAC_READ_SEARCH, Setpcap: unix.CAP_SETPCAP,
		NetBindService: unix.CAP_NET_BIND_SERVICE, NetAdmin: unix.CAP_NET_ADMIN, NetRaw: unix.CAP_NET_RAW, SysPtrace: unix.CAP_SYS_PTRACE,
		SysAdmin: unix.CAP_SYS_ADMIN, SysResource: unix.CAP_SYS_RESOURCE, Mknod: unix.CAP_MKNOD, Setfcap: unix.CAP_SETFCAP,
		MacAdmin: unix.CAP_MAC_ADMIN, Syslog: unix.CAP_SYSLOG, WakeAlarm: unix.CAP_WAKE_ALARM, AuditRead: unix.CAP_AUDIT_READ,
		Perfmon: unix.CAP_PERFMON, Bpf: unix.CAP_BPF, CheckpointRestore: unix.CAP_CHECKPOINT_RESTORE} {
		require.Equal(t, n, set.number())
	}
	require.Len(t, names, unix.CAP_LAST_CAP+1)
	require.Equal(t, Set(1<<41-1), known)
	require.Equal(t, 14, DockerDefault.Len())
}

// The names are libcap's: capsh knows each.
func TestNames(t *testing.T) {
	hasCommand(t, "capsh", "Debian's package libcap2-bin")
	for c := range known.Each() {
		out, err := exec.Command("capsh", "--explain="+c.String()).CombinedOutput()
		require.NoError(t, err, string(out))
		require.Contains(t, string(out), fmt.Sprintf("%v (%d)", c, c.number()))
	}
}

func TestSetString(t *testing.T) {
	for s, want := range map[Set]string{0: "none", All: "all", Chown: "cap_chown", NetRaw | Chown: "cap_chown,cap_net_raw", 1 << 41: "41",
		Chown | 1<<63: "cap_chown,63", All &^ SysAdmin: "all,!cap_sys_admin", All &^ SysAdmin &^ 1: "all,!cap_chown,!cap_sys_admin",
		unknown: "all,!" + strings.Join(known.words("cap_", strings.ToLower), ",!")} {
		require.Equal(t, want, s.String())
		back, err := Parse(s.String())
		require.NoError(t, err)
		require.Equal(t, s, back)
	}
	require.Equal(t, []string{"CAP_CHOWN", "CAP_NET_RAW"}, (NetRaw | Chown | 1<<50).Names())
	require.Equal(t, []Set{Chown, NetRaw, 1 << 63}, slices.Collect((NetRaw | Chown | 1<<63).Each()))
	for c := range All.Each() {
		require.Equal(t, Chown, c)
		break
	}
	require.True(t, All.Has(NetRaw|1<<63))
	require.False(t, NetRaw.Has(NetRaw|Chown))
}

func TestParse(t *testing.T) {
	for text, want := range map[string]Set{"NET_ADMIN": NetAdmin, "net_admin": NetAdmin, "CAP_NET_ADMIN": NetAdmin, "Cap_Net_Admin": NetAdmin,
		"all": All, "ALL": All, "none": 0, "12": NetAdmin, "63": 1 << 63, "0x1000": NetAdmin, "000001fffeffffff": known &^ SysResource,
		"chown, kill": Chown | Kill, "all,!sys_admin": All &^ SysAdmin, "all,!all": 0, "!chown": 0, "chown,!0,0": Chown,
		"0xffffffffffffffff": All, "!none,chown": Chown} {
		got, err := Parse(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", ",", "chown,", "64", "-1", "+1", "0x", "0x10000000000000000", "cap_", "cap_cap_chown", "CAP_ALL", "net admin",
		"!!chown", "!", "1e1", "0b1", "1_0", "0x1_0", "٣", "cap_41", "000001fffeffffg", "chown\x00", "ſyſ_admin", "\u212aill"} {
		got, err := Parse(text)
		var e *NameError
		require.ErrorAs(t, err, &e, text)
		require.ErrorIs(t, err, syscall.EINVAL)
		require.Zero(t, got)
		require.Contains(t, text, e.Text)
	}
}

func TestJSON(t *testing.T) {
	b, err := json.Marshal(map[string]Set{"keep": NetRaw | Kill})
	require.NoError(t, err)
	require.JSONEq(t, `{"keep":"cap_kill,cap_net_raw"}`, string(b))
	var back map[string]Set
	require.NoError(t, json.Unmarshal(b, &back))
	require.Equal(t, NetRaw|Kill, back["keep"])
	require.Error(t, json.Unmarshal([]byte(`{"keep":"everything"}`), &back))
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"all,!sys_admin", "CAP_NET_RAW,kill", "0x1f", "000001ffffffffff", "none", "63,!12"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			return
		}
		back, err := Parse(s.String())
		if err != nil || back != s {
			t.Fatalf("%q: %v, then %v, %v", text, s, back, err)
		}
	})
}

func TestRandomSets(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	for range 2000 {
		s := Set(r.Uint64()) | some(r, unknown)
		back, err := Parse(s.String())
		require.NoError(t, err)
		require.Equal(t, s, back)
		n := 0
		for c := range s.Each() {
			require.Equal(t, 1, c.Len())
			n++
		}
		require.Equal(t, s.Len(), n)
	}
}
