//go:build linux

package pty

import (
	"os"

	"golang.org/x/sys/unix"
)

// MakeRaw sets a terminal to raw mode (termios(3), cfmakeraw) and gives what sets it back. That may be called several times.
func MakeRaw(f *os.File) (restore func() error, err error) {
	saved, err := mode(f)
	if err != nil {
		return nil, err
	}
	raw := saved
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := setMode(f, raw); err != nil {
		return nil, err
	}
	return func() error { return setMode(f, saved) }, nil
}

func mode(f *os.File) (m unix.Termios, err error) {
	err = control(f, "ioctl TCGETS", func(fd int) error {
		p, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err == nil {
			m = *p
		}
		return err
	})
	return m, err
}

func setMode(f *os.File, m unix.Termios) error {
	return control(f, "ioctl TCSETS", func(fd int) error { return unix.IoctlSetTermios(fd, unix.TCSETS, &m) })
}
