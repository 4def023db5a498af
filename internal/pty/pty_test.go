package pty

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func open(t *testing.T) (master, peer *os.File) {
	t.Helper()
	master, peer, err := Open()
	require.NoError(t, err)
	t.Cleanup(func() { master.Close(); peer.Close() })
	return master, peer
}

func TestOpen(t *testing.T) {
	master, peer := open(t)
	for _, f := range []*os.File{master, peer} {
		require.NoError(t, control(f, "fcntl", func(fd int) error {
			flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
			require.Equal(t, unix.FD_CLOEXEC, flags)
			return err
		}))
	}
	_, err := peer.WriteString("shown\n")
	require.NoError(t, err)
	b := make([]byte, len("shown\r\n"))
	_, err = io.ReadFull(master, b) // it may come in pieces
	require.NoError(t, err)
	require.Equal(t, "shown\r\n", string(b))
	_, err = master.WriteString("typed\n")
	require.NoError(t, err)
	n, err := peer.Read(b)
	require.NoError(t, err)
	require.Equal(t, "typed\n", string(b[:n]))
}

// TestLocked: without Unlock there is no peer.
func TestLocked(t *testing.T) {
	f, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	defer f.Close()
	_, err = Peer(f)
	require.ErrorIs(t, err, syscall.EIO)
	require.NoError(t, Unlock(f))
	peer, err := Peer(f)
	require.NoError(t, err)
	require.NoError(t, peer.Close())
}

// TestNonBlocking: after all that this package does, a read ends at its deadline and when the master is closed.
func TestNonBlocking(t *testing.T) {
	master, peer := open(t)
	require.NoError(t, SetSize(master, 30, 90))
	rows, cols, err := Size(master)
	require.NoError(t, err)
	require.Equal(t, []uint16{30, 90}, []uint16{rows, cols})
	require.NoError(t, errors.Join(Check(master), Same(master, peer), Unlock(master)))
	_, err = MakeRaw(master)
	require.NoError(t, err)
	require.NoError(t, master.SetReadDeadline(time.Now().Add(10*time.Millisecond)))
	_, err = master.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, master.SetReadDeadline(time.Time{}))
	done := make(chan error)
	go func() {
		_, err := master.Read(make([]byte, 1))
		done <- err
	}()
	time.Sleep(10 * time.Millisecond)
	require.NoError(t, master.Close())
	require.ErrorIs(t, <-done, os.ErrClosed)
	require.ErrorIs(t, SetSize(master, 1, 1), os.ErrClosed)
}

// others are files of all kinds that are no pseudoterminal's master.
func others(t *testing.T) map[string]*os.File {
	t.Helper()
	_, peer := open(t)
	files := map[string]*os.File{"another peer": peer}
	for name, path := range map[string]string{"null": "/dev/null", "a directory": "/", "a file": "/proc/self/status", "devpts": "/dev/pts"} {
		f, err := os.Open(path)
		require.NoError(t, err)
		files[name] = f
	}
	r, w, err := os.Pipe()
	require.NoError(t, err)
	fifo := filepath.Join(t.TempDir(), "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	f, err := os.OpenFile(fifo, os.O_RDWR, 0)
	require.NoError(t, err)
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
	require.NoError(t, err)
	s, err := l.(*net.UnixListener).File()
	require.NoError(t, err)
	path, err := unix.Open("/dev/ptmx", unix.O_PATH|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	files["a pipe"], files["a fifo"], files["a socket"], files["ptmx that is not open"] = r, f, s, os.NewFile(uintptr(path), "ptmx")
	t.Cleanup(func() {
		for _, f := range files {
			f.Close()
		}
		w.Close()
		l.Close()
	})
	return files
}

func TestCheck(t *testing.T) {
	master, peer := open(t)
	require.NoError(t, Check(master))
	require.NoError(t, Same(master, peer))
	for name, f := range others(t) {
		require.Error(t, Check(f), name)
		require.Error(t, Same(f, peer), name)
		require.Error(t, Same(master, f), name)
	}
	second, other := open(t)
	require.NoError(t, Same(second, other))
	require.ErrorIs(t, Same(master, other), syscall.ENOTTY)
	require.ErrorContains(t, Same(master, os.Stdin), " is not the terminal 136:")
	require.Error(t, Check(nil))
}

// TestSameNeedsNoRights: what cannot be opened can still be looked at.
func TestSameNeedsNoRights(t *testing.T) {
	master, peer := open(t)
	name, err := os.Readlink("/proc/self/fd/" + number10(t, peer))
	require.NoError(t, err)
	fd, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	require.NoError(t, Same(master, f))
}

func number10(t *testing.T, f *os.File) (text string) {
	t.Helper()
	require.NoError(t, control(f, "", func(fd int) error {
		for ; fd > 0; fd /= 10 {
			text = string(rune('0'+fd%10)) + text
		}
		return nil
	}))
	return text
}

func TestDevpts(t *testing.T) {
	_, peer := open(t)
	require.NoError(t, Devpts(peer))
	for name, f := range others(t) {
		if err := Devpts(f); name != "devpts" && name != "another peer" && name != "ptmx that is not open" {
			var wrong *WrongFileError
			require.ErrorAs(t, err, &wrong, name)
			require.ErrorIs(t, err, syscall.ENOTTY, name)
			require.ErrorContains(t, err, "is not a devpts file system", name)
		}
	}
}

func TestMakeRaw(t *testing.T) {
	master, peer := open(t)
	before, err := mode(peer)
	require.NoError(t, err)
	restore, err := MakeRaw(peer)
	require.NoError(t, err)
	raw, err := mode(peer)
	require.NoError(t, err)
	require.Zero(t, raw.Lflag&(unix.ECHO|unix.ICANON|unix.ISIG|unix.IEXTEN))
	_, err = peer.WriteString("\n")
	require.NoError(t, err)
	_, err = master.WriteString("\x03\r")
	require.NoError(t, err)
	b := make([]byte, 2)
	_, err = io.ReadFull(peer, b)
	require.NoError(t, err)
	require.Equal(t, "\x03\r", string(b))
	n, err := master.Read(b)
	require.NoError(t, err)
	require.Equal(t, "\n", string(b[:n]), "no carriage return, and no echo")
	for range 2 {
		require.NoError(t, restore())
		after, err := mode(peer)
		require.NoError(t, err)
		require.Equal(t, before, after)
	}
}

// TestRefusal: what is no terminal is said to be none.
func TestRefusal(t *testing.T) {
	null, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer null.Close()
	_, err = MakeRaw(null)
	require.ErrorIs(t, err, syscall.ENOTTY)
	_, _, err = Size(null)
	require.ErrorIs(t, err, syscall.ENOTTY)
	require.ErrorIs(t, SetSize(null, 1, 1), syscall.ENOTTY)
	require.ErrorIs(t, Unlock(null), syscall.ENOTTY)
	_, err = Peer(null)
	require.ErrorIs(t, err, syscall.ENOTTY)
	require.EqualError(t, err, "ioctl TIOCGPTPEER: inappropriate ioctl for device")
	master, _ := open(t)
	require.NoError(t, master.Close())
	_, err = MakeRaw(master)
	require.ErrorIs(t, err, os.ErrClosed)
	_, err = MakeRaw(nil)
	require.ErrorIs(t, err, os.ErrInvalid)
}
