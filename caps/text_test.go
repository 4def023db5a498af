package caps

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// texts is what cap_from_text(3) and cap_to_text(3) of libcap 2.66 make of a text; "" is an error.
var texts = map[string]string{
	"": "=", "=": "=", "=ep": "=ep", "all=ep": "=ep", "ALL+ep": "=ep", "=epi": "=eip", "=p all+e": "=ep", "=p =e": "=e", " ": "=",
	"all=ep cap_chown-e": "=ep cap_chown-e", "  =ep\tcap_chown-e ": "=ep cap_chown-e", "=ie cap_chown+p": "=ei cap_chown+p",
	"cap_net_raw=ep": "cap_net_raw=ep", "cap_net_raw+ep": "cap_net_raw=ep", "CAP_NET_RAW=ep": "cap_net_raw=ep",
	"cap_net_raw,cap_chown=i cap_kill+p": "cap_chown,cap_net_raw=i cap_kill+p", "=p cap_chown=e": "=p cap_chown+e-p",
	"5=ep": "cap_kill=ep", "012=p": "cap_net_bind_service=p", "0x5=e": "cap_kill=e", "0X5=e": "cap_kill=e", "40=p": "cap_checkpoint_restore=p",
	"41=p": "= 41+p", "63=p 41=e": "= 63+p 41+e", "all=p 41-p": "=p", "=e 6+p 7-e 41+i 42+ei": "=e cap_setgid+p cap_setuid-e 42+ei 41+i",
	"cap_chown=ep 41=e": "cap_chown=ep 41+e", "cap_chown,all=p": "=p", "cap_chown=": "=", "=eip cap_chown=": "=eip cap_chown-eip",
	"cap_chown=+ep": "cap_chown=ep", "cap_chown=e+p-e": "cap_chown=p", "cap_chown=ee": "cap_chown=e", "cap_chown-e+p": "cap_chown=p", "cap_chown=-p": "=",
	"net_raw=ep": "", "64=e": "", "-1=p": "", "+5=p": "", "5x=p": "", "0x=p": "", "09=p": "", "0b1=p": "", "1_0=p": "", "cap_41=p": "", "cap_chown": "",
	"all": "", "cap_chown+": "", "cap_chown-": "", "=e=p": "", "cap_chown=e=p": "", "=p+e": "", "+ep": "", "-ep": "", "=ep-e": "",
	"cap_chown,=e": "", ",cap_chown=e": "", "=p, =e": "", "cap_chown =ep": "", "cap_chown=p-": "", "cap_chown++p": "", "cap_chown=E": "", "cap_chown+e=p": "",
}

var iabs = map[string]string{
	"": "", "cap_chown": "cap_chown", "^cap_chown": "^cap_chown", "!cap_chown": "!cap_chown", "%cap_chown": "cap_chown", "!%cap_chown": "!%cap_chown",
	"%!cap_chown": "!%cap_chown", "!^cap_chown": "!^cap_chown", "^!cap_chown": "!^cap_chown", "^%cap_chown": "^cap_chown", "5": "cap_kill", "^5": "^cap_kill",
	"cap_chown,^cap_kill,!cap_net_raw": "cap_chown,^cap_kill,!cap_net_raw", "CAP_CHOWN": "cap_chown", "cap_chown,!cap_chown": "!%cap_chown",
	"!cap_chown,cap_chown": "!%cap_chown", "cap_chown,^cap_chown": "^cap_chown", "cap_chown,": "cap_chown", "!!cap_chown": "!cap_chown",
	"^^cap_chown": "^cap_chown", "all": "error", "!all": "error", "64": "error", ",": "error", " cap_chown": "error", "cap_chown ": "error",
	"chown": "error", "cap_chown,,": "error", "!cap_chown,,cap_kill": "error",
}

func TestText(t *testing.T) {
	for text, want := range texts {
		s, err := ParseText(text)
		if want == "" {
			var e *TextError
			require.ErrorAs(t, err, &e, text)
			require.ErrorIs(t, err, syscall.EINVAL)
			continue
		}
		require.NoError(t, err, text)
		require.Equal(t, want, s.Text(), text)
	}
	for text, want := range iabs {
		s, err := ParseIAB(text)
		if want == "error" {
			var e *TextError
			require.ErrorAs(t, err, &e, text)
			continue
		}
		require.NoError(t, err, text)
		require.Equal(t, want, s.IAB(), text)
	}
}

func TestStateString(t *testing.T) {
	s := State{Permitted: NetRaw, Effective: NetRaw, Bounding: All &^ SysAdmin, NoNewPrivs: true, Securebits: NoRoot.Locked()}
	require.Equal(t, "cap_net_raw=ep [!cap_sys_admin] no_new_privs SECBIT_NOROOT|SECBIT_NOROOT_LOCKED", s.String())
	require.Equal(t, "=", State{Bounding: All, Securebits: NotShown}.String())
	require.Equal(t, "0", Securebits(0).String())
	require.Equal(t, NoRoot|LockNoRoot|KeepCaps|LockKeepCaps, (NoRoot | KeepCaps).Locked())
	require.Equal(t, LockNoRoot, LockNoRoot.Locked())
}

// TestAgainstLibcap: for the texts above, and for random ones that are mostly right, libcap and we say the same.
func TestAgainstLibcap(t *testing.T) {
	program := compile(t)
	r := rand.New(rand.NewPCG(5, 6))
	var lines []string
	for text := range texts {
		lines = append(lines, "t "+text)
	}
	for text := range iabs {
		lines = append(lines, "i "+text)
	}
	for range 20_000 {
		lines = append(lines, "t "+randomText(r), "i "+randomIAB(r))
	}
	c := exec.Command(program)
	c.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	out, err := c.Output()
	require.NoError(t, err)
	theirs := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	require.Len(t, theirs, len(lines))
	understood := 0
	for i, line := range lines {
		if strings.HasPrefix(line, "i ") && strings.ContainsAny(line[len(line)-1:], "!^%") {
			require.Equal(t, "error", ours(line), line) // a mark without a name: libcap passes over it
			continue
		}
		require.Equal(t, theirs[i], ours(line), line)
		if theirs[i] != "error" {
			understood++
		}
	}
	t.Logf("%d texts, %d of them understood", len(lines), understood)
	require.Greater(t, understood, len(lines)/4)
}

func ours(line string) string {
	if text, ok := strings.CutPrefix(line, "t "); ok {
		s, err := ParseText(text)
		if err != nil {
			return "error"
		}
		return s.Text()
	}
	s, err := ParseIAB(line[2:])
	if err != nil {
		return "error"
	}
	return s.IAB()
}

// compile makes the C program of testdata.
func compile(t *testing.T) string {
	t.Helper()
	hasCommand(t, "gcc", "Debian's package gcc")
	if _, err := os.Stat("/usr/include/sys/capability.h"); err != nil {
		t.Skipf("%v: it is in Debian's package libcap-dev", err)
	}
	if slow() {
		t.Skip("a C compiler is slow here, and libcap is the same everywhere")
	}
	program := filepath.Join(t.TempDir(), "libcap")
	out, err := exec.Command("gcc", "-O1", "-o", program, "testdata/libcap.c", "-lcap").CombinedOutput()
	require.NoError(t, err, string(out))
	return program
}

func randomText(r *rand.Rand) string {
	var clauses []string
	for range r.IntN(4) {
		list := randomList(r)
		if r.IntN(5) == 0 {
			list = ""
		}
		text := list
		for i := range 1 + r.IntN(3) {
			text += []string{"=", "+", "-"}[(r.IntN(3)+min(i, 1))%3]
			for range r.IntN(4) {
				text += string("eip"[r.IntN(3)])
			}
		}
		clauses = append(clauses, text)
	}
	return mutated(r, strings.Join(clauses, " "))
}

func randomList(r *rand.Rand) string {
	var words []string
	for range 1 + r.IntN(30)/10 {
		words = append(words, randomWord(r))
	}
	return strings.Join(words, ",")
}

func randomWord(r *rand.Rand) string {
	switch r.IntN(8) {
	case 0:
		return "all"
	case 1:
		return strconv.Itoa(r.IntN(66))
	case 2:
		return strings.ToUpper("cap_" + names[r.IntN(len(names))])
	}
	return "cap_" + names[r.IntN(len(names))]
}

func randomIAB(r *rand.Rand) string {
	var words []string
	for range r.IntN(5) {
		word := "cap_" + names[r.IntN(len(names))]
		if r.IntN(5) == 0 {
			word = strconv.Itoa(r.IntN(len(names)))
		}
		for range r.IntN(3) {
			word = string("!^%"[r.IntN(3)]) + word
		}
		words = append(words, word)
	}
	return mutated(r, strings.Join(words, ","))
}

// mutated changes a character now and then.
func mutated(r *rand.Rand, text string) string {
	if text == "" || r.IntN(4) > 0 {
		return text
	}
	i := r.IntN(len(text))
	return text[:i] + string("=+-,eip_ 0x9!^%"[r.IntN(15)]) + text[i+r.IntN(2):]
}

// getpcaps prints what we do.
func TestAgainstGetpcaps(t *testing.T) {
	asRoot(t, Setpcap|Setuid|Setgid)
	hasCommand(t, "getpcaps", "Debian's package libcap2-bin")
	for _, b := range []Bound{Drop(All), Keep(All), Keep(DockerDefault), Drop(All).Raise(NetRaw | Kill), {Keep: Kill, Inheritable: Chown}} {
		pid := sleeper(t, b, user(nobody)).PID
		s, err := Of(pid)
		require.NoError(t, err)
		out, err := exec.Command("getpcaps", "--iab", strconv.Itoa(pid)).CombinedOutput()
		require.NoError(t, err, string(out))
		want := strconv.Itoa(pid) + ":"
		if s.Text() != "=" {
			want += ` "` + s.Text() + `"`
		}
		if iab := s.IAB(); iab != "" {
			want += " [" + iab + "]"
		}
		require.Equal(t, want, strings.TrimSpace(string(out)))
	}
}

func TestRandomStates(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	n := 5000
	if slow() {
		n = 300
	}
	for range n {
		s := State{Permitted: some(r, All), Effective: some(r, All), Inheritable: some(r, All)}
		back, err := ParseText(s.Text())
		require.NoError(t, err)
		require.Equal(t, s, back, s.Text())
		s = State{Inheritable: some(r, All), Bounding: some(r, known) | unknown}
		s.Ambient = some(r, s.Inheritable)
		back, err = ParseIAB(s.IAB())
		require.NoError(t, err)
		require.Equal(t, s, back, s.IAB())
	}
}

func FuzzParseText(f *testing.F) {
	for text := range texts {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseText(text)
		if err != nil {
			return
		}
		if back, err := ParseText(s.Text()); err != nil || back != s {
			t.Fatalf("%q: %v, then %v, %v", text, s.Text(), back.Text(), err)
		}
	})
}

func FuzzParseIAB(f *testing.F) {
	for text := range iabs {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseIAB(text)
		if err != nil {
			return
		}
		if back, err := ParseIAB(s.IAB()); err != nil || back.IAB() != s.IAB() || back.Inheritable != s.Inheritable || back.Ambient != s.Ambient {
			t.Fatalf("%q: %v, then %v, %v", text, s.IAB(), back.IAB(), err)
		}
	})
}

func FuzzParseStatus(f *testing.F) {
	f.Add("Name:\tcat\nCapInh:\t0000000000000000\nCapPrm:\t000001ffffffffff\nCapEff:\t000001ffffffffff\nCapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\n")
	f.Add("CapInh:\t0\nCapInh:\t1\n")
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := parseStatus(text); err != nil && s != (State{}) {
			t.Fatal(s, err)
		}
	})
}
