package namespaces

import (
	"os"
	"runtime"
	"testing"
)

// onFirst takes functions that are to run on the first thread of the process.
var onFirst = make(chan func())

// TestMain keeps the main goroutine on the first thread.
func TestMain(m *testing.M) {
	runtime.LockOSThread()
	code := make(chan int)
	go func() { code <- m.Run() }()
	for {
		select {
		case f := <-onFirst:
			f()
		case c := <-code:
			os.Exit(c)
		}
	}
}
