package cgroups

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSocket(t *testing.T) {
	for address, want := range map[string]string{"unix:path=/run/user/1000/bus": "/run/user/1000/bus", "unix:guid=1,path=/a%20b": "/a b", "tcp:host=x;unix:abstract=/tmp/x,guid=2": "@/tmp/x"} {
		got, err := socket(address)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "")
	t.Setenv("XDG_RUNTIME_DIR", "/run/with space;,")
	got, err := socket(Systemd{User: true}.address())
	require.NoError(t, err)
	require.Equal(t, "/run/with space;,/bus", got)
}

// FuzzSocket: whatever an address says, it is one name of a socket without a NUL byte, or an error.
func FuzzSocket(f *testing.F) {
	for _, s := range []string{"unix:path=/run/x", "unix:abstract=x,guid=1;unix:path=%2f", "unixexec:path=/bin/sh", "unix:path=%00", ";;unix:,=,"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, err := socket(s)
		if err != nil {
			require.Empty(t, name)
			return
		}
		require.NotEmpty(t, name)
		require.NotContains(t, name, "\x00")
		require.Contains(t, s, "unix:")
		require.False(t, !strings.Contains(s, "%") && !strings.Contains(s, strings.TrimPrefix(name, "@")))
	})
}
