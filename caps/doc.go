//go:build linux

// Package caps says what root may do: Linux capabilities (capabilities(7)).
//
// The kernel has cut the power of root into capabilities, of which each thread has five sets. Effective is what the kernel looks at,
// permitted what can be made effective. The other three decide what a program has when it is executed: bounding is the most that
// there can be, ambient is kept by any user, and inheritable is gained together with a file that has it, too. A [State] holds all five; [Set] is one.
//
// # In a sandbox
//
// [Bound] is the part of a sandbox that says what its command has. It is a value, made by [Drop], [Keep] or [Docker]:
//
//	caps.Drop(caps.All)                             // nothing
//	caps.Drop(caps.All).Add(caps.NetBindService)    // one, where the command is root
//	caps.Drop(caps.All).Raise(caps.NetBindService)  // one, whoever the command is
//	caps.Keep(caps.DockerDefault)                   // what docker run leaves
//	caps.Docker(caps.NetAdmin, caps.NetRaw)         // docker run --cap-add NET_ADMIN --cap-drop NET_RAW
//	caps.Keep(caps.All)                             // docker run --privileged
//
// What is exact is the whole state: the inheritable set is empty and the ambient set as asked, whatever the caller's are, for the first
// command and for each further one. Without a Bound a command has what its user has, and root has everything.
//
// Read-only mounts, masked files and namespaces hold against root only if SysAdmin is not left to it.
//
// # On its own
//
// [Current] and [Of] read the state of a thread or process; [State.Install] sets that of the calling process, on all its threads. [Parse]
// reads names and masks, [ParseText] and [ParseIAB] the texts of libcap. [ReadFile], [File.Write] and [RemoveFile] are for the
// capabilities of files. [Missing] tells which capability it was that an operation lacked.
//
// # Errors
//
// A value or text that makes no sense is an EINVAL: [*NameError], [*TextError], [*FormatError], or an [*Error]. Capabilities that were
// asked for by name and are not there are a [*LackError], with EPERM. Everything else is an [*Error] with the errno. When a sandbox is started they
// stand inside a plan.Error, which names the step.
//
// # Example
//
// A service that drops its rights once it listens:
//
//	listener, err := net.Listen("tcp", ":80")
//	if err != nil {
//		return err
//	}
//	if err := (caps.State{NoNewPrivs: true}).Install(); err != nil {
//		return err
//	}
//	return http.Serve(listener, handler)
package caps
