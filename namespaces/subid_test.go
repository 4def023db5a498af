package namespaces

import (
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestReadSubordinate(t *testing.T) {
	u := subUser{name: "ann", uid: "1000"}
	for name, c := range map[string]struct {
		text string
		want []Range
	}{
		"name":    {"bob:1:2\nann:100000:65536\n", []Range{{0, 100000, 65536}}},
		"uid":     {"1000:100000:65536", []Range{{0, 100000, 65536}}},
		"both":    {"ann:100000:10\n1000:200000:20\n", []Range{{0, 100000, 10}, {0, 200000, 20}}},
		"same":    {"ann:100000:10\n1000:100000:10\n", []Range{{0, 100000, 10}}},
		"comment": {"# ann:1:2\n\n  ann:3:4  \n", []Range{{0, 3, 4}}},
		"others":  {"bob:5:10\nann:5:10\nanna:1:1\n", []Range{{0, 5, 10}}},
		"last":    {"ann:4294967294:1", []Range{{0, 4294967294, 1}}},
	} {
		got, err := readSubordinate(strings.NewReader(c.text), "f", u)
		require.NoError(t, err, name)
		require.Equal(t, c.want, got, name)
	}
}

func TestMalformedSubordinate(t *testing.T) {
	u := subUser{name: "ann", uid: "1000"}
	for text, want := range map[string]string{
		"ann:1":                      "not user:first:number",
		"ann:1:2:3":                  "not user:first:number",
		":1:2":                       "not user:first:number",
		"ann 1 2":                    "not user:first:number",
		"bob:x:2":                    "not a number",
		"ann:-1:2":                   "not a number",
		"ann:0x10:2":                 "not a number",
		"ann:1: 2":                   "not a number",
		"ann:1:4294967296":           "not a number",
		"ann:1:0":                    "size is 0",
		"ann:4294967295:1":           "no id",
		"ann:4294967290:100":         "beyond",
		"ann:10:10\n# x\nann:19:1":   "overlaps 10:10",
		"ann:10:10\n# x\n1000:1:100": "overlaps 10:10",
	} {
		_, err := readSubordinate(strings.NewReader("bob:1:1\n"+text), "/etc/subuid", u)
		var e *SubordinateError
		require.ErrorAs(t, err, &e, text)
		require.ErrorIs(t, err, unix.EINVAL)
		require.Contains(t, e.Error(), want, text)
		require.Equal(t, 2+strings.Count(text, "\n"), e.Line)
		require.Contains(t, e.Error(), "/etc/subuid:")
	}
}

func TestNothingGranted(t *testing.T) {
	for _, text := range []string{"", "bob:1:2\n", "1000:1:2"} {
		_, err := readSubordinate(strings.NewReader(text), "f", subUser{name: "ann"})
		require.ErrorIs(t, err, fs.ErrNotExist, text)
		require.ErrorContains(t, err, "ann")
	}
	_, err := subordinate("/nonexistent", subUser{name: "ann"}, 0)
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = SubordinateIDs("no such user here")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestReadUser(t *testing.T) {
	const passwd = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/:/bin/sh\nbroken\nbob:x:1001:1001::/:/bin/sh\nann2:x:1000:1::/:/bin/sh\n"
	for user, want := range map[string]subUser{
		"":        {"ann", "1000", true},
		"ann":     {"ann", "1000", true},
		"1000":    {"ann", "1000", true},
		"bob":     {"bob", "1001", false},
		"1001":    {"bob", "1001", false},
		"4242":    {"", "4242", false},
		"unknown": {"unknown", "", false},
		"root":    {"root", "0", false},
	} {
		u, err := readUser(strings.NewReader(passwd), user, "1000")
		require.NoError(t, err)
		require.Equal(t, want, u, user)
	}
}

func TestAppendRanges(t *testing.T) {
	m, err := appendRanges([]Range{{0, 1000, 1}}, []Range{{0, 100000, 10}, {0, 200000, 5}}, "f")
	require.NoError(t, err)
	require.Equal(t, []Range{{0, 1000, 1}, {1, 100000, 10}, {11, 200000, 5}}, m)
	m, err = appendRanges(nil, []Range{{0, 100000, 10}}, "f")
	require.NoError(t, err)
	require.Equal(t, []Range{{0, 100000, 10}}, m)
	_, err = appendRanges([]Range{{0, 1000, 1}}, []Range{{0, 0, 4294967295}}, "f")
	require.ErrorIs(t, err, unix.EINVAL)
}

// Root's own id is not in its map: root inside is nobody outside.
func TestSubordinateOfRoot(t *testing.T) {
	f := t.TempDir() + "/subuid"
	require.NoError(t, os.WriteFile(f, []byte("root:100000:65536\n"), 0o600))
	m, err := subordinate(f, subUser{name: "root", uid: "0", own: true}, 0)
	require.NoError(t, err)
	require.Equal(t, []Range{{0, 100000, 65536}}, m)
	m, err = subordinate(f, subUser{name: "root", uid: "0"}, 1000)
	require.NoError(t, err)
	require.Equal(t, []Range{{0, 100000, 65536}}, m)
}

func FuzzReadSubordinate(f *testing.F) {
	for _, s := range []string{"ann:100000:65536\n", "1000:1:2", "# x\n\nann:1:1", "ann:1:0", "ann:x:1", "ann:4294967295:1", "ann:1:2:3", "ann:1:5\nann:3:1", ":1:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		granted, err := readSubordinate(strings.NewReader(text), "f", subUser{name: "ann", uid: "1000"})
		if err != nil {
			require.Nil(t, granted)
			return
		}
		require.NotEmpty(t, granted)
		m, err := appendRanges(nil, granted, "f")
		if err != nil {
			require.ErrorIs(t, err, unix.EINVAL)
			return
		}
		if err := checkMap("uid", m); err != nil { // only for its length
			require.Greater(t, len(mapText(m)), 4000)
		}
	})
}
