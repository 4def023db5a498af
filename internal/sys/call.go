//go:build linux

package sys

// Call is a system call in the form in which the child makes it: numbers only.
type Call struct {
	Trap     uintptr
	Args     [6]uintptr
	Load     [6]uint16 // the argument comes from slot Load-1; 0: from Args
	Save     uint16    // the result goes to slot Save-1; 0: nowhere
	Kind     Kind
	Tolerate uintptr // this errno is no failure
	Skip     int     // calls to pass over when Tolerate was met
	Step     int     // index of the step that the call belongs to
}

// Kind says what the child does with a Call.
type Kind uint8

// The kinds of calls.
const (
	Plain     Kind = iota // make the call
	Reclone               // make the call, a clone; the parent of the new child ends
	Alive                 // make the call, a poll of the host; end when it reports something
	Parent                // make the call, a getppid; end when it is neither Args[0] nor 0, which is one outside the pid namespace
	Receive               // make the call, a read; end when it reads nothing
	Await                 // as Receive, of a socket; look some times without sleeping before
	Try                   // make the call, an execve; where Skip is set, go on with the next when there is no such file
	Inspect               // open the program; end when it is a script
	Offer                 // make the call, then wait, without a call, until the parent has taken the descriptor
	CloseLoop             // close the descriptors from Args[0] up to, not including, Args[1], one by one
)
