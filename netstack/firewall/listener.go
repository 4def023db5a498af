//go:build linux

package firewall

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// listener finds the process that has a port, as far as the caller may see it: the socket by /proc/net, and then who has it among his descriptors (proc(5)).
func (f *Firewall) listener(b binding) (pid int, name string) {
	var files []string
	switch b.protocol {
	case TCP:
		files = []string{"tcp", "tcp6"}
	case UDP:
		files = []string{"udp", "udp6"}
	default:
		files = []string{"sctp/eps"}
	}
	sockets := map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile("/proc/thread-self/net/" + file)
		if err != nil {
			continue
		}
		for _, inode := range listening(string(text), b.port) {
			sockets["socket:["+inode+"]"] = true
		}
	}
	return holder(sockets)
}

// listening gives the inodes of sockets with a local port in the text of one of the files of /proc/net. Of TCP only those that listen count.
func listening(text string, port uint16) (inodes []string) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) >= 10 && strings.HasSuffix(f[0], ":") { // sl local_address rem_address st ... inode
			_, hex, ok := strings.Cut(f[1], ":")
			n, err := strconv.ParseUint(hex, 16, 16)
			if ok && err == nil && uint16(n) == port && f[3] != "01" && f[9] != "0" {
				inodes = append(inodes, f[9])
			}
			continue
		}
		if len(f) >= 8 && f[5] == strconv.Itoa(int(port)) { // ENDPT SOCK STY SST HBKT LPORT UID INODE
			inodes = append(inodes, f[7])
		}
	}
	return inodes
}

// holder finds a process with one of the sockets among its descriptors.
func holder(sockets map[string]bool) (pid int, name string) {
	if len(sockets) == 0 {
		return 0, ""
	}
	dir, err := os.Open("/proc")
	if err != nil {
		return 0, ""
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err != nil || !holds("/proc/"+n+"/fd", sockets) {
			continue
		}
		comm, _ := os.ReadFile("/proc/" + n + "/comm")
		return pid, strings.TrimSpace(string(comm))
	}
	return 0, ""
}

func holds(fds string, sockets map[string]bool) bool {
	dir, err := os.Open(fds)
	if err != nil {
		return false
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	buf := make([]byte, 64)
	for _, n := range names {
		k, err := unix.Readlinkat(int(dir.Fd()), n, buf)
		if err == nil && sockets[string(buf[:k])] {
			return true
		}
	}
	return false
}
