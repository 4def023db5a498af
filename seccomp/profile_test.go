package seccomp

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"

	docker "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/stretchr/testify/require"
)

// TestProfileErrors: line and field of what is wrong.
func TestProfileErrors(t *testing.T) {
	rule := func(text string) string {
		return "{\n \"defaultAction\": \"SCMP_ACT_ERRNO\",\n \"syscalls\": [\n  {\"names\": [\"read\"], \"action\": \"SCMP_ACT_ALLOW\"},\n  {" + text + "}\n ]\n}"
	}
	for text, want := range map[string]string{
		"":                                   "line 1: unexpected end of JSON input",
		"{\n\"defaultAction\": \"SCMP_\n\"}": `line 2: invalid character '\n' in string literal`,
		"{\n \"syscalls\": 7}":               "line 2: syscalls: number does not fit here",
		"{}":                                 `line 1: defaultAction: "" is no action of a profile`,
		"{\n\n \"defaultAction\": \"SCMP_ACT_SOME\"}":                                                                      `line 3: defaultAction: "SCMP_ACT_SOME" is no action of a profile`,
		"{\"defaultAction\": \"SCMP_ACT_ERRNO\",\n \"defaultErrnoRet\": 5000}":                                             `line 1: defaultAction: "5000" is no errno`,
		"{\"defaultAction\": \"SCMP_ACT_ALLOW\",\n \"architectures\": [\"SCMP_ARCH_X86\",\n\"X86\"]}":                      `line 3: architectures[1]: "X86" is no architecture`,
		"{\"defaultAction\": \"SCMP_ACT_ALLOW\",\n \"flags\": [\n\"X\"]}":                                                  `line 3: flags[0]: "X" is no flag of a filter`,
		"{\"defaultAction\": \"SCMP_ACT_ALLOW\",\n \"architectures\": [\"SCMP_ARCH_X86\"],\n\"archMap\": [{}]}":            "line 3: archMap: the profile has architectures, too",
		rule(`"names": ["x"], "action": "ALLOW"`):                                                                          `line 5: syscalls[1].action: "ALLOW" is no action of a profile`,
		rule(`"names": ["x"], "name": "y", "action": "SCMP_ACT_ALLOW"`):                                                    "line 5: syscalls[1].name: the rule has names, too",
		rule(`"names": ["x", ""], "action": "SCMP_ACT_ALLOW"`):                                                             "line 5: syscalls[1].names[1]: the name is empty",
		rule("\"names\": [\"x\"], \"action\": \"SCMP_ACT_ALLOW\", \"args\": [\n{\"index\": 6, \"op\": \"SCMP_CMP_EQ\"}]"):  "line 6: syscalls[1].args[0]: arg6 == 0x0: a system call has the arguments 0 to 5",
		rule("\"names\": [\"x\"], \"action\": \"SCMP_ACT_ALLOW\", \"args\": [\n{\"index\": 0, \"op\": \"EQ\"}]"):           `line 6: syscalls[1].args[0]: "EQ" is no operator`,
		rule("\"names\": [\"x\"], \"action\": \"SCMP_ACT_ALLOW\", \"args\": [\n{\"index\": -1, \"op\": \"SCMP_CMP_EQ\"}]"): "line 6: syscalls.args.index: number -1 does not fit here",
		rule("\"names\": [\"x\"], \"action\": \"SCMP_ACT_ALLOW\", \"args\": [null]"):                                       "line 5: syscalls[1].args[0]: null is no condition",
		rule("\"names\": [\"x\"], \"action\": \"SCMP_ACT_ALLOW\", \"includes\": {\n\"minKernel\": \"4\"}"):                 `line 6: syscalls[1].includes.minKernel: "4" is no kernel version of the form 4.8`,
		rule("\"names\": [\"x\"], \"action\": \"SCMP_ACT_ALLOW\", \"excludes\": {\n\"minKernel\": \"0.0\"}"):               `line 6: syscalls[1].excludes.minKernel: "0.0" is no kernel version of the form 4.8`,
		"{\"defaultAction\": \"SCMP_ACT_ALLOW\",\n\"syscalls\": [\nnull]}":                                                 "line 3: syscalls[0]: null is no rule",
	} {
		_, err := ParseProfile([]byte(text))
		require.EqualError(t, err, want, text)
		require.ErrorAs(t, err, new(*FieldError))
		require.ErrorIs(t, err, syscall.EINVAL)
	}
}

func TestProfileContradiction(t *testing.T) {
	p, err := ParseProfile([]byte(`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
		{"names": ["socket"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 5, "op": "SCMP_CMP_GT"}]},
		{"names": ["socket"], "action": "SCMP_ACT_KILL", "args": [{"index": 0, "value": 9, "op": "SCMP_CMP_LT"}]}]}`))
	require.NoError(t, err)
	f := p.Filter(Target{Arch: X86_64, Kernel: [2]int{6, 1}})
	e := new(ContradictionError)
	require.ErrorAs(t, f.Err(), &e)
	require.Equal(t, []int{0, 1}, []int{e.First, e.Second})
}

// TestProfileListener: what a supervisor needs is kept.
func TestProfileListener(t *testing.T) {
	p, err := ParseProfile([]byte(`{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/s.sock", "listenerMetadata": "x",
		"flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"], "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}], "unknown": {"a": [1]}}`))
	require.NoError(t, err)
	require.Equal(t, "/run/s.sock", p.ListenerPath)
	require.Equal(t, "x", p.ListenerMetadata)
	f := p.Filter(Target{})
	require.NoError(t, f.Err())
	require.Equal(t, LogRefused|WaitKillable, f.Flags)
	require.True(t, f.Program.Notifies())
	text, err := json.Marshal(p)
	require.NoError(t, err)
	again, err := ParseProfile(text)
	require.NoError(t, err)
	require.Equal(t, p, again)
	_, err = (&Profile{DefaultAction: "SCMP_ACT_NOTIFY"}).Policy(Target{})
	require.ErrorAs(t, err, new(*FieldError))
}

func TestTarget(t *testing.T) {
	for name, ok := range map[string]bool{"CAP_SYS_ADMIN": true, "sys_admin": true, "Cap_Sys_Admin": true, "SYS_ADMINS": false, "": false, "CAP_": false} {
		require.Equal(t, ok, DockerDefault(name).Err() == nil, name)
	}
	require.ErrorAs(t, DockerDefault("x").Err(), new(*NameError))
	for kernel, want := range map[[2]int]Action{{4, 7}: Errno(syscall.EPERM), {4, 8}: Allow, {5, 0}: Allow, {3, 19}: Errno(syscall.EPERM)} {
		f := DockerProfile().Filter(Target{Arch: X86_64, Kernel: kernel})
		nr, _ := X86_64.Number("ptrace")
		require.Equal(t, want, f.Program.Verdict(X86_64, nr), kernel)
	}
}

// TestDockerAsMoby: the rules that count are those that Docker's own code leaves over.
func TestDockerAsMoby(t *testing.T) {
	if Native().info().docker == "" || Native() == I386 || Native() == ARM {
		t.Skip("Docker's profile has no such architecture of its own")
	}
	for _, caps := range [][]string{nil, {"CAP_SYS_ADMIN"}, {"CAP_SYS_CHROOT", "CAP_BPF"}} {
		spec := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}}}
		want, err := docker.GetDefaultProfile(spec)
		require.NoError(t, err)
		asMoby(t, DockerProfile(), want, caps)
	}
	for _, name := range []string{"docker-old", "docker-conditions"} {
		text, err := os.ReadFile("testdata/profiles/" + name + ".json")
		require.NoError(t, err)
		p, err := ParseProfile(text)
		require.NoError(t, err)
		for _, caps := range [][]string{{}, {"CAP_SYS_ADMIN"}, {"CAP_SYS_CHROOT"}} {
			spec := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}}}
			want, err := docker.LoadProfile(string(text), spec)
			require.NoError(t, err)
			asMoby(t, p, want, caps)
		}
	}
}

func asMoby(t *testing.T, p *Profile, want *specs.LinuxSeccomp, caps []string) {
	t.Helper()
	target, err := Target{Caps: caps}.complete()
	require.NoError(t, err)
	var left []*ProfileRule
	for _, r := range p.Syscalls {
		if ok, ferr := r.counts(target); ferr == nil && ok {
			left = append(left, r)
		}
	}
	require.Len(t, left, len(want.Syscalls))
	for i, s := range want.Syscalls {
		require.Equal(t, s.Names, append(left[i].Names, strings.Fields(left[i].Name)...))
		require.Equal(t, string(s.Action), left[i].Action)
		require.Equal(t, s.ErrnoRet, left[i].ErrnoRet)
		require.Len(t, left[i].Args, len(s.Args))
	}
}

// randomProfile makes profiles with what libseccomp 2.5 compiles rightly. It goes wrong where a call has several rules with different bounds for
// one argument (personality above 0xffffffff, above 0x5d44087e524043, or at most 13: it ends the thread for 0xffffffff), and where
// a rule compares several arguments by order. So a call has one rule with conditions, or some without.
func randomProfile(r *rand.Rand) *Profile {
	acts := []string{"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_LOG", "SCMP_ACT_TRAP", "SCMP_ACT_TRACE"}
	names := []string{"read", "ioctl", "socket", "accept", "clone", "mkdir", "semop", "shmget", "personality", "recvmmsg", "setuid", "no_such_call"}
	r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	p := &Profile{DefaultAction: acts[r.IntN(len(acts))], ArchMap: DockerProfile().ArchMap}
	// With one or two rules libseccomp 2.5 now and then forgets to load the number.
	others := &ProfileRule{Names: []string{"getpid", "getuid", "gettid", "close", "openat", "mmap", "exit", "exit_group", "kill", "futex"}, Action: "SCMP_ACT_ALLOW"}
	if p.DefaultAction == others.Action {
		others.Action = "SCMP_ACT_LOG"
	}
	p.Syscalls = append(p.Syscalls, others)
	for _, name := range names[:r.IntN(len(names))] {
		rule := &ProfileRule{Names: []string{name}, Action: acts[r.IntN(len(acts))]}
		p.Syscalls = append(p.Syscalls, rule)
		switch r.IntN(3) {
		case 0:
			p.Syscalls = append(p.Syscalls, &ProfileRule{Names: []string{name, "socketcall"}, Action: acts[r.IntN(len(acts))]})
		case 1:
			rule.Args = []*ProfileArg{randomArg(r, uint(r.IntN(6)), profileOps[r.IntN(len(profileOps))].name)}
		default:
			for i := range uint(1 + r.IntN(4)) {
				rule.Args = append(rule.Args, randomArg(r, i, []string{"SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ"}[r.IntN(2)]))
			}
		}
	}
	return p
}

func randomArg(r *rand.Rand, i uint, op string) *ProfileArg {
	a := &ProfileArg{Index: i, Value: randomValue(r), Op: op}
	if op == "SCMP_CMP_MASKED_EQ" {
		a.ValueTwo = randomValue(r) & (a.Value | 1)
	}
	return a
}

// TestProfilesAsLibseccomp compares random profiles with libseccomp's programs.
func TestProfilesAsLibseccomp(t *testing.T) {
	bin := libseccomp(t)
	names := map[Arch]map[int]string{}
	for a := range Arches() {
		names[a] = known(t, bin, a)
	}
	const seed = 7 // one with which libseccomp makes no mistake
	r := rand.New(rand.NewPCG(seed, 0))
	done, refused, theirRefusal := 0, 0, 0
	for done+refused < 40 {
		p := randomProfile(r)
		// libseccomp 2.5 does not take the multiplexers of ppc64le apart.
		target := Target{Arch: []Arch{X86_64, ARM64, RISCV64}[r.IntN(3)], Kernel: [2]int{6, 1}, NoENOSYS: true}
		f := p.Filter(target)
		if f.Err() != nil {
			require.ErrorAs(t, f.Err(), new(*ContradictionError))
			refused++
			continue
		}
		theirs, _, err := compileC(bin, script(t, p, target), "list", target.Arch)
		if err != nil {
			require.ErrorIs(t, err, errRefused)
			theirRefusal++
			continue
		}
		text, err := []byte(script(t, p, target)), error(nil)
		require.NoError(t, err)
		same(t, f.Program.code(), theirs, f.Program.Arches(), p, seed, names, string(text))
		done++
	}
	t.Logf("%d the same, %d with contradictions, %d that libseccomp refuses", done, refused, theirRefusal)
}
