//go:build linux

package notify

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// killed are the calls for which processes of one start were killed. There may be any number of them, but what is kept is bounded.
type killed struct {
	main int // the command, or the init process that has started it
	init bool

	mu    sync.Mutex
	own   string // the command's call
	other string // the first call of another process
	count int    // of other processes
}

// report makes a handler that kills what the program kills, and leaves the rest to h.
func (k *killed) report(p []unix.SockFilter, h Handler) Handler {
	return func(ctx context.Context, r *Request) Response {
		d := data{nr: int32(r.NR), arch: r.Token, ip: r.IP, args: r.Args}
		if v := verdict(p, &d); !killing(v) {
			return h(ctx, r)
		}
		k.note(r)
		return Kill()
	}
}

// note keeps the call before the process is killed: whoever sees its end finds it.
func (k *killed) note(r *Request) {
	process, parent := r.PID, 0
	if status, err := readStatus(r.PID); err == nil && r.Valid() == nil {
		process, parent = status["Tgid"], status["PPid"]
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if process == k.main || k.init && parent == k.main {
		k.own = r.String()
		return
	}
	if k.count++; k.count == 1 {
		k.other = fmt.Sprintf("process %d was killed for %v", process, r)
	}
}

type killedKey struct{}

// observe adds to the result of the command what is known.
func observe(run *plan.Run, result *plan.Result) {
	k, ok := run.Value(killedKey{}).(*killed)
	if !ok {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.own != "" && result.Reason == plan.Signaled && result.Signal == unix.SIGKILL:
		result.Reason, result.Syscall, result.Detail = plan.Filtered, k.own, k.own
	case k.count > 0 && result.Detail == "":
		result.Detail = k.other
		if k.count > 1 {
			result.Detail += fmt.Sprintf(", and %d more", k.count-1)
		}
	}
}
