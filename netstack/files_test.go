//go:build linux

package netstack

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func tree(t *testing.T, files map[string]string) string {
	dir := t.TempDir() + "/"
	for name, text := range files {
		require.NoError(t, os.MkdirAll(filepath.Dir(dir+name), 0o755))
		require.NoError(t, os.WriteFile(dir+name, []byte(text), 0o644))
	}
	return dir
}

func TestHostResolv(t *testing.T) {
	const stub = "# by systemd-resolved\nnameserver 127.0.0.53\noptions edns0 trust-ad\nsearch corp.example\n"
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"plain":         {map[string]string{"etc/resolv.conf": "nameserver 192.0.2.1\nsearch a b\n"}, "nameserver 192.0.2.1\nsearch a b\n"},
		"resolved":      {map[string]string{"etc/resolv.conf": stub, "run/systemd/resolve/resolv.conf": "nameserver 10.8.0.1\nnameserver 192.0.2.1\nsearch other\n"}, "nameserver 10.8.0.1\nnameserver 192.0.2.1\nsearch corp.example\noptions edns0 trust-ad\n"},
		"dnsmasq of NM": {map[string]string{"etc/resolv.conf": "nameserver 127.0.0.1\n", "run/NetworkManager/no-stub-resolv.conf": "nameserver 192.0.2.9\nsearch lan\n"}, "nameserver 192.0.2.9\nsearch lan\n"},
		"mixed":         {map[string]string{"etc/resolv.conf": "nameserver ::1\nnameserver fe80::1%eth0\nnameserver 2001:db8::1\n"}, "nameserver 2001:db8::1\n"},
	} {
		r, err := hostResolv(tree(t, c.files))
		require.NoError(t, err, name)
		b, err := r.Bytes()
		require.NoError(t, err)
		require.Equal(t, c.want, string(b), name)
	}
	_, err := hostResolv(tree(t, map[string]string{"etc/resolv.conf": stub}))
	require.ErrorIs(t, err, syscall.ENOENT)
	_, err = hostResolv(tree(t, nil))
	require.ErrorIs(t, err, syscall.ENOENT)
}

func TestFiles(t *testing.T) {
	a := netip.MustParseAddr("10.9.0.2")
	b, err := Hosts(HostEntry{a, []string{"web", "www"}})
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n10.9.0.2\tweb www\n", string(b))
	b, err = HostnameFile("web")
	require.NoError(t, err)
	require.Equal(t, "web\n", string(b))
	for _, bad := range []string{"", "a b", "a\nb", "a#b", "a\x00"} {
		_, err = Hosts(HostEntry{a, []string{bad}})
		require.ErrorIs(t, err, syscall.EINVAL)
		_, err = HostnameFile(bad)
		require.ErrorIs(t, err, syscall.EINVAL)
		_, err = Resolv{Search: []string{bad}}.Bytes()
		require.ErrorIs(t, err, syscall.EINVAL)
	}
	_, err = Hosts(HostEntry{Names: []string{"x"}})
	require.ErrorIs(t, err, syscall.EINVAL)
	_, err = Resolv{Nameservers: []netip.Addr{{}}}.Bytes()
	require.ErrorIs(t, err, syscall.EINVAL)
}

// FuzzResolv: what has been read can be written, and reads the same again.
func FuzzResolv(f *testing.F) {
	for _, s := range []string{"", "nameserver 127.0.0.53\noptions edns0\nsearch .\n", "nameserver fe80::1%eth0", "domain a b\nsearch\tc\n", "nameserver\nnameserver x\n;x\n", "search a\u00a0b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r := ParseResolv([]byte(text))
		b, err := r.Bytes()
		if err != nil {
			return // words with what a line must not have
		}
		again := ParseResolv(b)
		if len(again.Nameservers) != len(r.Nameservers) || strings.Join(again.Search, " ") != strings.Join(r.Search, " ") || strings.Join(again.Options, " ") != strings.Join(r.Options, " ") {
			t.Errorf("%q: %+v, then %+v", text, r, again)
		}
	})
}
