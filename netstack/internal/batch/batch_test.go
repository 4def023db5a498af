//go:build linux

package batch

import (
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestAnswers: answers stand where their requests do, the first error is told with its place, and the socket can be used again. It needs no privilege.
func TestAnswers(t *testing.T) {
	c, err := Open(unix.NETLINK_ROUTE)
	require.NoError(t, err)
	defer c.Close()
	for range 3 {
		answers, err := c.Do(Link(1, ""), Link(1, ""))
		require.NoError(t, err)
		require.Len(t, answers, 2)
		for _, a := range answers {
			require.Equal(t, "lo", name(a))
		}
		answers, err = c.Do(Link(1, ""), Link(1<<30, ""), Link(1<<30+1, ""), Link(1, ""))
		var e *Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, &Error{1, syscall.ENODEV}, e)
		require.ErrorIs(t, err, syscall.ENODEV)
		require.Equal(t, "lo", name(answers[0])+name(answers[1]))
		require.Equal(t, "lo", name(answers[3]), "what comes after it has been done")
		_, err = c.Do(Link(1<<30, ""))
		require.ErrorIs(t, err, syscall.ENODEV)
	}
	answers, err := c.Do()
	require.NoError(t, err)
	require.Empty(t, answers)
}

func name(answer []byte) (text string) {
	if len(answer) < unix.SizeofIfInfomsg {
		return ""
	}
	for kind, value := range Attrs(answer[unix.SizeofIfInfomsg:]) {
		if kind == unix.IFLA_IFNAME {
			text = unix.ByteSliceToString(value)
		}
	}
	return text
}

// TestNumbers: they begin anew without a 0, which would be that of what the kernel sends unasked.
func TestNumbers(t *testing.T) {
	c, err := Open(unix.NETLINK_ROUTE)
	require.NoError(t, err)
	defer c.Close()
	for _, last := range []uint32{1<<32 - 1, 1<<32 - 2, 1<<32 - 3, 1<<31 - 1} {
		c.number = last
		for range 2 {
			answers, err := c.Do(Link(1, ""), Link(1, ""))
			require.NoError(t, err)
			require.Equal(t, "lolo", name(answers[0])+name(answers[1]))
			require.NotZero(t, c.number)
		}
	}
}

// TestTransaction: one of nf_tables that is refused says why, and does not wait for what does not come.
func TestTransaction(t *testing.T) {
	c, err := Open(unix.NETLINK_NETFILTER)
	if errors.Is(err, syscall.EPROTONOSUPPORT) {
		t.Skip("the kernel has no nfnetlink:", err)
	}
	require.NoError(t, err)
	defer c.Close()
	border := []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}
	missing := Request{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_DELSETELEM, Body: String([]byte{unix.NFPROTO_INET, 0, 0, 0}, unix.NFTA_SET_ELEM_LIST_TABLE, "no-such-table")}
	for range 3 {
		_, err = c.Do(Request{Type: unix.NFNL_MSG_BATCH_BEGIN, Body: border}, missing, missing, Request{Type: unix.NFNL_MSG_BATCH_END, Body: border})
		var e *Error
		require.ErrorAs(t, err, &e)
		require.Contains(t, []syscall.Errno{syscall.EPERM, syscall.ENOENT, syscall.EOPNOTSUPP}, e.Err)
	}
}

// TestClosed: a socket that is closed is no descriptor of somebody else's.
func TestClosed(t *testing.T) {
	c, err := Open(unix.NETLINK_ROUTE)
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.NoError(t, c.Close())
	_, err = c.Do(Link(1, ""))
	require.ErrorIs(t, err, os.ErrClosed)
}

// TestForeign: what another process sends is not taken for an answer.
func TestForeign(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c, err := Open(unix.NETLINK_ROUTE)
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Do(Link(1, "")) // gives the socket its address
	require.NoError(t, err)
	own, err := unix.Getsockname(c.fd)
	require.NoError(t, err)
	other, err := Open(unix.NETLINK_ROUTE)
	require.NoError(t, err)
	defer other.Close()
	body := binary.NativeEndian.AppendUint32(nil, ^uint32(unix.ENOMEM)+1)
	forged := Request{Type: unix.NLMSG_ERROR, Body: append(body, make([]byte, unix.NLMSG_HDRLEN)...)}.append(nil, c.number+1)
	err = unix.Sendto(other.fd, forged, 0, own)
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ECONNREFUSED) {
		t.Skip("nobody may send to the socket:", err)
	}
	require.NoError(t, err)
	answers, err := c.Do(Link(1, ""))
	require.NoError(t, err)
	require.Equal(t, "lo", name(answers[0]))
}

// FuzzRead: whatever comes is taken apart without a panic.
func FuzzRead(f *testing.F) {
	f.Add(Request{Type: unix.NLMSG_ERROR, Body: make([]byte, 20)}.append(nil, 7))
	f.Add(Link(1, "").append(Link(2, "").append(nil, 7), 8))
	f.Add([]byte{3, 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		answers := make([][]byte, 2)
		read(b, 7, answers, 1)
		for _, a := range answers {
			for range Attrs(a) {
			}
		}
	})
}

// TestAttr: attributes as others read them, nested ones too.
func TestAttr(t *testing.T) {
	b := Nest(String(nil, 3, "eth0"), 18|unix.NLA_F_NESTED, func(b []byte) []byte { return Big32(Uint32(b, 1, 7), 2, 7) })
	require.Len(t, b, 12+4+8+8)
	var kinds []uint16
	for kind, value := range Attrs(b) {
		kinds = append(kinds, kind)
		if kind == 18 {
			for kind, value := range Attrs(value) {
				kinds = append(kinds, kind)
				require.Len(t, value, 4)
			}
		}
	}
	require.Equal(t, []uint16{3, 18, 1, 2}, kinds)
	for cut := range b {
		for range Attrs(b[:cut]) {
		}
	}
}
