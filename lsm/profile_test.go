package lsm_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/lsm"
)

// everything uses each kind of rule.
var everything = lsm.Profile{
	Name: "caisson-everything", Complain: true, AttachDisconnected: true, MediateDeleted: true,
	Files: []lsm.FileRule{{Path: "/usr/**", Perms: "rmix"}, {Owner: true, Path: "/tmp/a b/{c,d}*", Perms: "rwkl"}, {Path: "/var/log/x", Perms: "ra"},
		{Deny: true, Path: "/etc/shadow", Perms: "rwx"}, {Path: "/bin/child", Perms: "rCx", To: "kid"}, {Path: "/bin/other", Perms: "Px", To: "other"},
		{Path: "/bin/free", Perms: "Ux"}},
	Capabilities: []lsm.CapabilityRule{{Names: []string{"net_bind_service", "chown"}}, {Deny: true, Names: []string{"sys_admin"}}},
	Network:      []lsm.NetworkRule{{Family: "inet", Type: "stream"}, {Family: "unix"}, {Deny: true, Family: "inet6"}},
	Mounts: []lsm.MountRule{{FSType: "tmpfs", Options: []string{"nosuid", "nodev"}, Source: "tmpfs", Target: "/mnt/"}, {Deny: true, Op: "remount", Target: "/"},
		{Op: "umount", Target: "/mnt/"}, {Op: "pivot_root", Target: "/new/"}, {Target: "/only/target/"}},
	Ptrace:   []lsm.PtraceRule{{Access: []string{"read"}, Peer: "unconfined"}, {}},
	Signals:  []lsm.SignalRule{{Access: []string{"send"}, Signals: []string{"term", "kill"}, Peer: "caisson-*"}, {Deny: true}},
	Changes:  []string{"unconfined"},
	Children: []lsm.Profile{{Name: "kid", Files: []lsm.FileRule{{}}}},
}

func TestProfileText(t *testing.T) {
	for name, p := range map[string]lsm.Profile{"everything": everything, "docker": lsm.DockerDefault("caisson-default")} {
		got, err := p.Text()
		require.NoError(t, err)
		file := filepath.Join("testdata", "profile-"+name+".golden")
		if *lsm.Update {
			require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
		}
		want, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, string(want), got)
	}
}

func needParser(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("apparmor_parser"); err != nil {
		if _, err := os.Stat("/usr/sbin/apparmor_parser"); err != nil {
			t.Skip("needs apparmor_parser (package apparmor)")
		}
	}
}

// TestCompile: AppArmor's own parser understands what we write.
func TestCompile(t *testing.T) {
	needParser(t)
	for _, p := range []lsm.Profile{everything, lsm.DockerDefault("caisson-default"), {Name: "empty"}} {
		b, err := p.Compile(context.Background())
		require.NoError(t, err, p.Name)
		require.Contains(t, string(b), p.Name)
	}
	_, err := lsm.Profile{Name: "x", Capabilities: []lsm.CapabilityRule{{Names: []string{"no_such"}}}}.Compile(context.Background())
	var e *lsm.Error
	require.ErrorAs(t, err, &e)
	require.Contains(t, e.Hint, "no_such")
}

func TestBadProfiles(t *testing.T) {
	file := func(r lsm.FileRule) lsm.Profile { return lsm.Profile{Name: "x", Files: []lsm.FileRule{r}} }
	for name, p := range map[string]lsm.Profile{
		"no name":           {},
		"unconfined":        {Name: "unconfined"},
		"name with a quote": {Name: `a"b`},
		"line break":        {Name: "a\nb"},
		"name of a stack":   {Name: "a//&b"},
		"name of a child":   {Name: "a//b"},
		"quote in a path":   file(lsm.FileRule{Path: "/a\" rwix,\n/**", Perms: "r"}),
		"relative path":     file(lsm.FileRule{Path: "a", Perms: "r"}),
		"path, no perms":    file(lsm.FileRule{Path: "/a"}),
		"perms, no path":    file(lsm.FileRule{Perms: "r"}),
		"unknown perm":      file(lsm.FileRule{Path: "/a", Perms: "rz"}),
		"perm twice":        file(lsm.FileRule{Path: "/a", Perms: "rr"}),
		"w and a":           file(lsm.FileRule{Path: "/a", Perms: "wa"}),
		"plain x":           file(lsm.FileRule{Path: "/a", Perms: "rx"}),
		"two ways":          file(lsm.FileRule{Path: "/a", Perms: "ixpx"}),
		"deny a way":        file(lsm.FileRule{Deny: true, Path: "/a", Perms: "rix"}),
		"injected perms":    file(lsm.FileRule{Path: "/a", Perms: "r,\n/** rw"}),
		"to without change": file(lsm.FileRule{Path: "/a", Perms: "rix", To: "b"}),
		"backslash":         file(lsm.FileRule{Path: `/a\`, Perms: "r"}),
		"capability":        {Name: "x", Capabilities: []lsm.CapabilityRule{{Names: []string{"chown, file"}}}},
		"network":           {Name: "x", Network: []lsm.NetworkRule{{Family: "inet,"}}},
		"abstraction":       {Name: "x", Abstractions: []string{"../../tmp/x"}},
		"abstraction >":     {Name: "x", Abstractions: []string{"base>\n"}},
		"mount operation":   {Name: "x", Mounts: []lsm.MountRule{{Op: "file"}}},
		"source of umount":  {Name: "x", Mounts: []lsm.MountRule{{Op: "umount", Source: "/a"}}},
		"mount option":      {Name: "x", Mounts: []lsm.MountRule{{Options: []string{"a)"}}}},
		"ptrace access":     {Name: "x", Ptrace: []lsm.PtraceRule{{Access: []string{"read)"}}}},
		"signal peer":       {Name: "x", Signals: []lsm.SignalRule{{Peer: "a\""}}},
		"change":            {Name: "x", Changes: []string{""}},
		"child of a child":  {Name: "x", Children: []lsm.Profile{{Name: "y", Children: []lsm.Profile{{Name: "z"}}}}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := p.Text()
			require.ErrorIs(t, err, syscall.EINVAL)
			_, err = p.Compile(context.Background())
			require.ErrorIs(t, err, syscall.EINVAL)
		})
	}
}

func TestNoParser(t *testing.T) {
	if _, err := os.Stat("/usr/sbin/apparmor_parser"); err == nil {
		return // TestCompile uses it
	}
	t.Setenv("PATH", "/nonexistent")
	_, err := lsm.Profile{Name: "x"}.Compile(context.Background())
	require.ErrorIs(t, err, errors.ErrUnsupported)
}

// FuzzProfile: whatever stands in a value, there is one line for each rule, and no line that begins another one.
func FuzzProfile(f *testing.F) {
	f.Add("name", "/path", "rw", "unconfined", "chown")
	f.Add("a b", "/x y\" r,", "rix", "p\n", "x")
	f.Fuzz(func(t *testing.T, name, path, perms, peer, word string) {
		p := lsm.Profile{Name: name, Files: []lsm.FileRule{{Path: path, Perms: perms}}, Signals: []lsm.SignalRule{{Peer: peer}},
			Capabilities: []lsm.CapabilityRule{{Names: []string{word}}}}
		got, err := p.Text()
		if err != nil {
			return
		}
		lines := strings.Split(got, "\n")
		if len(lines) != 7 || strings.ContainsRune(got, 0) {
			t.Fatalf("%q", got)
		}
		for i, quotes := range []int{0, 2, 0, 2, 2, 0, 0} {
			if peer == "" && i == 4 {
				quotes = 0
			}
			if strings.Count(lines[i], `"`) != quotes {
				t.Errorf("%q", lines[i])
			}
		}
	})
}
