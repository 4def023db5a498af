//go:build linux

package plan

import "fmt"

// Phase is a stretch of the child's way from clone to execve. The package documentation gives the order and the
// reason for each boundary. The zero value is Cgroup, the first.
type Phase uint8

// The phases, in the order in which the child goes through them.
const (
	Cgroup       Phase = iota // enter control groups
	Join                      // enter existing namespaces
	Users                     // take up the ids of a new user namespace
	Sources                   // open and clone what comes from the host
	Root                      // change the root
	Mounts                    // mount inside the new root
	Names                     // hostname, domain name, sysctls
	Seal                      // make read-only, mask
	Limits                    // resource limits, priority, affinity
	Files                     // standard descriptors, session, terminal
	Bounds                    // capability bounding set, keep-caps, while the rights for it are there
	Credentials               // groups, user
	Capabilities              // the capability sets of the user
	Directory                 // working directory
	Labels                    // AppArmor, SELinux
	Landlock                  // Landlock rule sets
	Seccomp                   // system call filters
	Last                      // drops what only the filters needed

	phases = int(Last) + 1
)

var phaseNames = [phases]string{"cgroup", "join", "users", "sources", "root", "mounts", "names", "seal", "limits", "files",
	"bounds", "credentials", "capabilities", "directory", "labels", "landlock", "seccomp", "last"}

// String gives the phase's name in lower case.
func (p Phase) String() string {
	if int(p) < phases {
		return phaseNames[p]
	}
	return fmt.Sprintf("phase(%d)", uint8(p))
}

// again reports whether a command that is executed in a running sandbox goes through the phase as the first command
// did: its file systems and names are there already, its process attributes are not.
func (p Phase) again() bool {
	switch p {
	case Join, Sources, Root, Mounts, Names, Seal:
		return false
	}
	return true
}
