// Install gives up capabilities on all threads as its arguments say, and tells what each thread then has. It is built without cgo.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/caps"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Println("error:", err, errors.Is(err, errors.ErrUnsupported))
		os.Exit(1)
	}
}

func run(what string) error {
	release := threads(8)
	defer release()
	now, err := caps.Current()
	if err != nil {
		return err
	}
	switch what {
	case "none":
		now = caps.State{NoNewPrivs: true}
	case "ambient":
		now = caps.State{Permitted: caps.Kill | caps.Chown, Effective: caps.Kill, Inheritable: caps.Kill, Ambient: caps.Kill, Bounding: caps.Kill,
			Securebits: caps.NoRoot.Locked() | caps.NoSetuidFixup}
	case "same":
		now.Securebits = caps.NotShown
	case "differ":
		undo := differ()
		defer undo()
	case "more":
		now.Permitted |= 1 << 60
	}
	if err := now.Install(); err != nil {
		return err
	}
	return report()
}

// threads makes threads that are busy with nothing.
func threads(n int) (release func()) {
	var started sync.WaitGroup
	stop := make(chan bool)
	for range n {
		started.Add(1)
		go func() {
			runtime.LockOSThread()
			started.Done()
			<-stop
		}()
	}
	started.Wait()
	return func() { close(stop) }
}

// differ takes capabilities from one thread only.
func differ() func() {
	ready, stop := make(chan error), make(chan bool)
	go func() {
		runtime.LockOSThread()
		var none [2]unix.CapUserData
		ready <- unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0])
		<-stop
	}()
	<-ready
	return func() { close(stop) }
}

func report() error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	seen := map[string]int{}
	for _, t := range tasks {
		b, err := os.ReadFile("/proc/self/task/" + t.Name() + "/status")
		if err != nil {
			continue
		}
		text := ""
		for line := range strings.Lines(string(b)) {
			if strings.HasPrefix(line, "Cap") || strings.HasPrefix(line, "NoNewPrivs") {
				text += line
			}
		}
		seen[text]++
	}
	for text, n := range seen {
		fmt.Printf("threads %d or more %v\n%s", 8, n >= 8, text)
	}
	now, err := caps.Current()
	fmt.Println(now.Securebits)
	return err
}
