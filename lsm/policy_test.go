package lsm

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/plan"
)

const allFixed = 7

// on is the rule set on a kernel that is not here.
type on struct {
	rules  []Rule
	kernel landlock
	best   bool
}

func (o on) Apply(p *plan.Plan) error { return applyRules(p, o.rules, o.kernel, o.best) }

var some = []Rule{ReadOnly("/etc", "/usr/lib"), Execute("/usr"), ReadWrite("/tmp/x").Optional(), Connect(443), Bind(), ScopeSignals(),
	ScopeAbstractSockets(), Log(NewExec)}

// TestGolden: plans, word for word, for kernels of several ages.
func TestGolden(t *testing.T) {
	for name, o := range map[string]on{
		"abi9":      {append(some[:len(some):len(some)], ConnectUnix("/run/a.sock", "/run/b")), landlock{9, allFixed}, false},
		"abi7":      {some, landlock{7, allFixed}, false},
		"abi3":      {[]Rule{ABI(3), Execute("/usr"), ReadWrite("/tmp")}, landlock{7, allFixed}, false},
		"best-abi5": {some, landlock{5, allFixed}, true},
		"best-abi1": {some, landlock{1, 0}, true},
	} {
		file := filepath.Join("testdata", "landlock-"+name+".golden")
		got := withoutNofile(plan.Build(o).String())
		if *update {
			require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
		}
		want, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, string(want), got)
	}
}

var number = regexp.MustCompile(`(?m)^ *\d+ `)

// withoutNofile drops numbers and the call that depends on the limits of whoever runs the test.
func withoutNofile(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.Contains(line, "RLIMIT_NOFILE") {
			b.WriteString(number.ReplaceAllString(line, ""))
		}
	}
	return b.String()
}

// TestExact: what a kernel lacks is an error that names the rule and the version that it needs.
func TestExact(t *testing.T) {
	for name, c := range map[string]struct {
		rules []Rule
		have  int
		rule  string
		needs int // 0: no error
	}{
		"no Landlock":            {[]Rule{ReadOnly("/")}, 0, "read-only /", 5},
		"no Landlock, ABI 1":     {[]Rule{ABI(1), ReadOnly("/")}, 0, "read-only /", 1},
		"ABI 1 is enough":        {[]Rule{ABI(1), ReadOnly("/")}, 1, "", 0},
		"files need all of ABI5": {[]Rule{ReadOnly("/usr")}, 4, "read-only /usr", 5},
		"ABI 2 of ABI 1":         {[]Rule{ABI(2), ReadOnly("/usr")}, 1, "read-only /usr", 2},
		"ABI 3 of ABI 2":         {[]Rule{ABI(3), Execute("/usr")}, 2, "execute /usr", 3},
		"ABI 4 asks no more":     {[]Rule{ABI(4), Execute("/usr")}, 3, "", 0},
		"ports":                  {[]Rule{Connect(443)}, 3, "connect 443", 4},
		"no ports":               {[]Rule{Bind()}, 3, "bind", 4},
		"ports alone":            {[]Rule{Connect(443)}, 4, "", 0},
		"signals":                {[]Rule{ScopeSignals()}, 5, "scope signals", 6},
		"sockets":                {[]Rule{ScopeAbstractSockets()}, 5, "scope abstract sockets", 6},
		"log":                    {[]Rule{ReadOnly("/"), Log(NewExec)}, 6, "log 0x2", 7},
		"all of it":              {some, 7, "", 0},
		"Unix sockets":           {[]Rule{ConnectUnix("/run/a")}, 8, "connect unix /run/a", 9},
		"no Unix sockets":        {[]Rule{ReadOnly("/"), ConnectUnix()}, 7, "connect unix", 9},
		"Unix sockets alone":     {[]Rule{ConnectUnix()}, 9, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			pol, err := translate(c.rules, landlock{c.have, allFixed}, false)
			if c.needs == 0 {
				require.NoError(t, err)
				require.Empty(t, pol.left)
				return
			}
			require.ErrorIs(t, err, errors.ErrUnsupported)
			var e *RuleError
			require.ErrorAs(t, err, &e)
			require.Equal(t, []any{c.rule, c.needs, c.have}, []any{e.Rule.String(), e.ABI, e.Have})
			require.Contains(t, err.Error(), `rule "`+c.rule+`"`)
		})
	}
}

// TestHandled: for each version exactly the access that it knows is denied by default, and no rule allows more than is denied.
func TestHandled(t *testing.T) {
	for abi, want := range map[int]uint64{1: 0x1fff, 2: 0x3fff, 3: 0x7fff, 4: 0x7fff, 5: 0xffff, 6: 0xffff, 7: 0xffff, 8: 0xffff, 9: 0xffff} {
		pol, err := translate([]Rule{ABI(abi), ReadWrite("/a"), Execute("/b"), ReadOnly("/c")}, landlock{9, allFixed}, false)
		require.NoError(t, err)
		require.Equal(t, want, pol.fs, "ABI %d", abi)
		best, err := translate([]Rule{ReadWrite("/a")}, landlock{abi, allFixed}, true)
		require.NoError(t, err)
		require.Equal(t, want, best.fs, "ABI %d", abi)
		for _, r := range pol.paths {
			require.Zero(t, (r.file|r.dir)&^pol.fs)
			require.Zero(t, r.file&r.dir)
			const onFiles = fsExecute | fsWriteFile | fsReadFile | fsTruncate | fsIoctlDev // ACCESS_FILE of the kernel
			require.Zero(t, r.file&^onFiles)
			require.Zero(t, r.dir&onFiles)
			require.Zero(t, (r.file|r.dir)&(fsMakeChar|fsMakeBlock), "device nodes can be made")
		}
		require.Zero(t, (pol.paths[1].file|pol.paths[2].file)&fsWriteFile)
		require.Zero(t, pol.paths[0].file&fsExecute)
		require.Zero(t, pol.paths[2].file&fsExecute)
	}
}

// TestBestEffort: what is left out is said, and nothing at all is an error.
func TestBestEffort(t *testing.T) {
	pol, err := translate(some, landlock{2, allFixed}, true)
	require.NoError(t, err)
	require.Equal(t, []string{"truncating files (ABI 3)", "ioctl of devices (ABI 5)", "connect (ABI 4)", "bind (ABI 4)", "scope signals (ABI 6)",
		"scope abstract sockets (ABI 6)", "what is logged (ABI 7)"}, pol.left)
	require.Zero(t, pol.net|pol.scoped|pol.log)
	require.Empty(t, pol.ports)
	for _, rules := range [][]Rule{{Connect(1)}, {ScopeSignals(), Log(NewExec)}} {
		_, err = translate(rules, landlock{3, allFixed}, true)
		require.ErrorIs(t, err, errors.ErrUnsupported)
	}
	_, err = translate(some, landlock{}, true)
	require.ErrorIs(t, err, errors.ErrUnsupported)
}

// TestOutcomeInResult: what best effort has left out stands in the plan and in the result.
func TestOutcomeInResult(t *testing.T) {
	p := plan.Build(on{some, landlock{6, allFixed}, true})
	require.NoError(t, p.Err())
	require.Contains(t, p.String(), "not enforced: what is logged (ABI 7)")
	r := plan.Result{Detail: "before"}
	p.Observed(&plan.Run{}, &r)
	require.Equal(t, "before; Landlock does not restrict here: what is logged (ABI 7)", r.Detail)
	r = plan.Result{}
	plan.Build(on{some, landlock{7, allFixed}, true}).Observed(&plan.Run{}, &r)
	require.Empty(t, r.Detail)
}

// TestSockets: only ConnectUnix speaks of sockets, before and after rules for files.
func TestSockets(t *testing.T) {
	for _, rules := range [][]Rule{{ReadWrite("/a"), ConnectUnix("/a/s")}, {ConnectUnix("/a/s"), ReadWrite("/a")}} {
		pol, err := translate(rules, landlock{9, allFixed}, false)
		require.NoError(t, err)
		require.Equal(t, uint64(0x1ffff), pol.fs)
		for _, r := range pol.paths {
			if r.path == "/a/s" {
				require.Equal(t, []uint64{fsResolveUnix, 0}, []uint64{r.file, r.dir})
			} else {
				require.Zero(t, (r.file|r.dir)&fsResolveUnix)
			}
		}
		best, err := translate(rules, landlock{8, allFixed}, true)
		require.NoError(t, err)
		require.Equal(t, uint64(0xffff), best.fs)
		require.Equal(t, []string{"connect unix (ABI 9)"}, best.left)
	}
	_, err := translate([]Rule{ABI(8), ConnectUnix()}, landlock{9, allFixed}, false)
	require.ErrorIs(t, err, syscall.EINVAL)
}

// TestErrata: a bad kernel is restricted as much as a good one, or more.
func TestErrata(t *testing.T) {
	rules := []Rule{ReadWrite("/tmp"), Connect(1)}
	_, err := translate(rules, landlock{7, 0}, false)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.ErrorContains(t, err, "erratum 3")
	pol, err := translate(rules, landlock{7, 0}, true)
	require.NoError(t, err)
	require.NotZero(t, pol.fs&fsRefer)
	require.Zero(t, pol.paths[0].dir&fsRefer)
	require.Equal(t, []string{"permission to move files between directories (erratum 3)"}, pol.left)
	require.Equal(t, uint64(netConnect), pol.net)
	_, err = translate([]Rule{ReadOnly("/"), Connect(1)}, landlock{7, 0}, false)
	require.NoError(t, err, "nothing is moved")
}

func TestBadRules(t *testing.T) {
	for name, rules := range map[string][]Rule{
		"none":               nil,
		"nothing restricted": {ABI(3), Log(NewExec)},
		"zero rule":          {{}},
		"relative path":      {ReadOnly("usr")},
		"empty path":         {ReadWrite("")},
		"NUL":                {Execute("/usr\x00/x")},
		"ABI 0":              {ABI(0), ReadOnly("/")},
		"ABI of the future":  {ABI(NewestABI + 1), ReadOnly("/")},
		"negative ABI":       {ABI(-1), ReadOnly("/")},
		"optional port":      {Connect(1).Optional()},
		"optional nothing":   {ReadOnly().Optional()},
		"no logging":         {ReadOnly("/"), Log(0)},
		"unknown logging":    {ReadOnly("/"), Log(8)},
		"newer than ABI":     {ABI(3), Connect(1)},
		"scope of ABI 5":     {ABI(5), ScopeSignals()},
	} {
		t.Run(name, func(t *testing.T) {
			for _, best := range []bool{false, true} {
				err := plan.Build(on{rules, landlock{7, allFixed}, best}).Err()
				require.ErrorIs(t, err, syscall.EINVAL)
			}
		})
	}
}

// TestSignalsOfThreads: on a kernel with erratum 2 a process is not cut into threads that cannot signal each other.
func TestSignalsOfThreads(t *testing.T) {
	if probe().abi < abiScope {
		t.Skip("needs Landlock ABI 6")
	}
	_, err := restrictSelf([]Rule{ScopeSignals()}, landlock{6, 1}, false)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.ErrorContains(t, err, "erratum 2")
}

func TestRuleText(t *testing.T) {
	for want, r := range map[string]Rule{
		`read-only /a "/b c" "/d\n"`: ReadOnly("/a", "/b c", "/d\n"),
		`read-write /a (optional)`:   ReadWrite("/a").Optional(),
		`bind 1 65535`:               Bind(1, 65535),
		`ABI 3`:                      ABI(3),
		`log 0x5`:                    Log(NotSameExec | NotSubdomains),
		`none`:                       {},
	} {
		require.Equal(t, want, r.String())
	}
}

// FuzzRules: no rule makes a policy that allows more than it handles, nor a plan that cannot be printed.
func FuzzRules(f *testing.F) {
	f.Add("/usr", uint16(80), uint8(2), 7, uint32(7), true)
	f.Add("/\n\"", uint16(0), uint8(6), 1, uint32(0), false)
	f.Fuzz(func(t *testing.T, path string, port uint16, intent uint8, abi int, errata uint32, best bool) {
		paths := []Rule{ReadOnly(path), ReadWrite(path).Optional(), Execute(path), List(path)}
		rules := []Rule{paths[int(intent)%4], []Rule{Bind(port), Connect(port), ScopeSignals(), ABI(abi), ConnectUnix(path)}[int(intent)%5]}
		k := landlock{abi & 15, errata}
		pol, err := translate(rules, k, best)
		p := plan.Build(on{rules, k, best})
		if (err == nil) != (p.Err() == nil) {
			t.Errorf("%v, and %v", err, p.Err())
		}
		for line := range strings.Lines(p.String()) {
			if strings.ContainsAny(strings.TrimSuffix(line, "\n"), "\n\r\x00") {
				t.Errorf("%q", line)
			}
		}
		for _, r := range pol.paths {
			if (r.file|r.dir)&^pol.fs != 0 || r.file|r.dir == 0 {
				t.Errorf("%x and %x of %x", r.file, r.dir, pol.fs)
			}
		}
	})
}
