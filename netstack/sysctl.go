//go:build linux

package netstack

import (
	"errors"
	"io/fs"
	"strings"

	"github.com/caisson-dev/caisson/internal/procfs"
)

// parameters sets parameters of the calling thread's network namespace, each a name below net and a value. Those of IPv6 are left out by a kernel that has none.
//
// It takes a /proc of its own where it may: in one that all share, the kernel keeps the directories net/ipv6 of all network namespaces that have been looked at under one name, and goes
// through them one by one. With a thousand sandboxes that took half a millisecond.
func parameters(device string, settings ...[2]string) error {
	tidy, err := setParameters(device, settings...)
	if tidy != nil {
		tidy()
	}
	return err
}

// setParameters is parameters, and leaves to be done what need not be done at once: the kernel takes a mount apart when nobody can be looking at it any longer.
func setParameters(device string, settings ...[2]string) (tidy func(), err error) {
	proc, err := procfs.Open()
	if err != nil {
		return nil, failed(err, "open /proc for sysctls of", device)
	}
	tidy = func() { proc.Close() }
	for _, s := range settings {
		err := setParameter(proc, "sys/net/"+s[0], s[1])
		if errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(s[0], "ipv6/") {
			continue
		}
		if err != nil {
			return tidy, failed(err, "set sysctl net/"+s[0]+" of", device)
		}
	}
	return tidy, nil
}

// setParameter writes one. Where a security module judges by the path, it may refuse what has none, and allow the same in /proc.
func setParameter(proc *procfs.FS, name, value string) error {
	err := proc.Write(name, value)
	if !errors.Is(err, fs.ErrPermission) || !proc.Detached() {
		return err
	}
	usual, e := procfs.OpenAt("/proc")
	if e != nil {
		return err
	}
	defer usual.Close()
	return usual.Write(name, value)
}

// believeNobody has the devices that are made in the thread's network namespace from now on not ask for routers, and not believe those who say that they are one: the sandbox's routes are those of its
// parts. Where hundreds are on one bridge, each question would also go to all of them.
func believeNobody() (tidy func(), err error) {
	return setParameters("sandbox", [2]string{"ipv6/conf/default/accept_ra", "0"})
}

// sayOnce is believeNobody for a sandbox on bridges only. Each card tells all others which groups it listens to, and once more within a second, and again for each of its addresses (RFC 3810, 6.1: in case that it was lost on
// the way). On a cable to a bridge nothing is lost, and of a thousand cards each would hear it a thousand times.
func sayOnce() (tidy func(), err error) {
	return setParameters("sandbox", [2]string{"ipv6/conf/default/accept_ra", "0"}, [2]string{"ipv6/conf/default/mldv2_unsolicited_report_interval", "600000"})
}

// deaf makes a device of the host's side ignore router advertisements and redirects.
func deaf(device string) error {
	return parameters(device, [2]string{"ipv6/conf/" + device + "/accept_ra", "0"}, [2]string{"ipv6/conf/" + device + "/autoconf", "0"},
		[2]string{"ipv6/conf/" + device + "/accept_redirects", "0"}, [2]string{"ipv4/conf/" + device + "/accept_redirects", "0"})
}
