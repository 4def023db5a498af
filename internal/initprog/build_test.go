//go:build linux

package initprog

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const maxSize = 2048

var targets = []struct {
	goarch, triplet string
	machine         elf.Machine
}{
	{"amd64", "x86_64-linux-gnu", elf.EM_X86_64},
	{"arm64", "aarch64-linux-gnu", elf.EM_AARCH64},
}

// needTool skips unless the tool is there in the version that build.sh records.
func needTool(t *testing.T, tool, recorded string) {
	t.Helper()
	script, err := os.ReadFile("build.sh")
	require.NoError(t, err)
	m := regexp.MustCompile(`(?m)^# ` + recorded + `: (.*)$`).FindSubmatch(script)
	require.NotNil(t, m, "build.sh records no %s", recorded)
	out, err := exec.Command(tool, "--version").Output()
	if err != nil {
		t.Skipf("%s %q is needed: %v", tool, m[1], err)
	}
	first, _, _ := bytes.Cut(out, []byte("\n"))
	if !bytes.Contains(first, m[1]) {
		t.Skipf("%s %q is needed, this is %q", tool, m[1], first)
	}
}

// What is checked in is what the sources say.
func TestReproducible(t *testing.T) {
	if os.Getenv("VMRUN") == "1" {
		t.Skip("the compiler is the host's, and slow in a virtual machine")
	}
	for _, target := range targets {
		needTool(t, target.triplet+"-gcc", "compiler")
		needTool(t, target.triplet+"-ld", "linker")
	}
	dir := t.TempDir()
	out, err := exec.Command("/bin/sh", "build.sh", dir).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Empty(t, out)
	for _, target := range targets {
		want, err := os.ReadFile(filepath.Join(dir, "init_"+target.goarch))
		require.NoError(t, err)
		got, err := os.ReadFile("init_" + target.goarch)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got), "init_%s is not what build.sh makes of src/", target.goarch)
	}
}

// The programs are small and static, have one segment, which is not writable, and a
// stack that is not executable.
func TestBinaries(t *testing.T) {
	for _, target := range targets {
		t.Run(target.goarch, func(t *testing.T) {
			f, err := elf.Open("init_" + target.goarch)
			require.NoError(t, err)
			defer f.Close()
			info, err := os.Stat("init_" + target.goarch)
			require.NoError(t, err)
			require.LessOrEqual(t, info.Size(), int64(maxSize))
			require.Equal(t, target.machine, f.Machine)
			require.Equal(t, elf.ET_EXEC, f.Type)
			flags := map[elf.ProgType]elf.ProgFlag{}
			for _, p := range f.Progs {
				flags[p.Type] |= p.Flags
			}
			require.Equal(t, map[elf.ProgType]elf.ProgFlag{
				elf.PT_LOAD:      elf.PF_R | elf.PF_X,
				elf.PT_GNU_STACK: elf.PF_R | elf.PF_W,
			}, flags)
		})
	}
}

// The other architecture's program, run by qemu's user mode. There vfork is fork,
// so a failed exec cannot be seen: what succeeds is tested.
func TestEmulated(t *testing.T) {
	qemu := ""
	for _, name := range []string{"qemu-aarch64", "qemu-aarch64-static"} {
		if p, err := exec.LookPath(name); err == nil {
			qemu = p
		}
	}
	if qemu == "" {
		t.Skip("qemu-aarch64 is needed (package qemu-user)")
	}
	args, err := Args(3, []string{"/no/such", "/bin/sh"}, []string{"sh", "-c", `trap 'exit 7' TERM; ( : & ); echo ready; while :; do sleep 0.01; done`})
	require.NoError(t, err)
	b := newBox(t, append([]string{"qemu", "-0", args[0], "./init_arm64"}, args[1:]...), noNamespace)
	b.Path = qemu
	b.begin()
	require.Equal(t, "ready", b.line())
	b.record(Executed)
	require.NoError(t, b.Process.Signal(unix.SIGTERM))
	records, _, code := b.end()
	require.Equal(t, []Record{{Ended, 7 << 8}}, records)
	require.Equal(t, 7, code)
}

// The exit codes in the package's documentation are those of the source.
func TestExitCodesDocumented(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	source, err := os.ReadFile("src/init.c")
	require.NoError(t, err)
	for _, code := range []int{125, 127} {
		require.True(t, strings.Contains(string(source), fmt.Sprintf(" = %d,", code)))
		require.True(t, strings.Contains(string(doc), fmt.Sprintf("exits with %d", code)))
	}
}
