package caisson_test

import (
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/chroot"
)

// A command that believes to be run by a person: what it prints is read, and what it asks for is typed.
func ExampleTerminal() {
	cmd := caisson.New().Command("sh", "-c", `stty -echo; test -t 0 && read -r name && echo "hello $name"; stty size`)
	cmd.Terminal = &caisson.Terminal{Rows: 30, Cols: 100}
	if err := cmd.Start(); err != nil {
		log.Fatal(err)
	}
	defer cmd.Terminal.Close()
	fmt.Fprintln(cmd.Terminal, "world")
	out, err := io.ReadAll(cmd.Terminal)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(out) > 0, cmd.Wait())
	// Output: true <nil>
}

// An interactive shell in a sandbox, on the caller's own terminal. The signals are the program's business: the library installs
// no handlers.
func ExampleMakeRaw() {
	shell := caisson.New(clone(syscall.CLONE_NEWPID), chroot.Host{}, chroot.Proc{}, chroot.Dev{}).Command("sh", "-i") // clone: namespaces.PID
	rows, cols, err := caisson.TerminalSize(os.Stdin)
	if err != nil {
		return // the standard input is not a terminal
	}
	shell.Terminal = &caisson.Terminal{Rows: rows, Cols: cols}
	if err := shell.Start(); err != nil {
		log.Fatal(err)
	}
	defer shell.Terminal.Close()
	restore, err := caisson.MakeRaw(os.Stdin)
	if err != nil {
		log.Fatal(err)
	}
	defer restore()
	changes := make(chan os.Signal, 1)
	signal.Notify(changes, syscall.SIGWINCH)
	go func() {
		for range changes {
			if rows, cols, err := caisson.TerminalSize(os.Stdin); err == nil {
				shell.Terminal.Resize(rows, cols)
			}
		}
	}()
	go io.Copy(shell.Terminal, os.Stdin)
	io.Copy(os.Stdout, shell.Terminal)
	shell.Wait()
}

// A further command in a running sandbox has a terminal in the same way.
func ExampleProcess_Exec_terminal() {
	server := caisson.New(clone(syscall.CLONE_NEWPID), chroot.Host{}, chroot.Proc{}, chroot.Dev{}).Command("sleep", "60")
	if err := server.Start(); err != nil {
		log.Fatal(err)
	}
	shell := server.Process.Exec("tty")
	shell.Terminal = &caisson.Terminal{}
	if err := shell.Start(); err != nil {
		log.Fatal(err)
	}
	io.Copy(os.Stdout, shell.Terminal) // /dev/pts/0
	shell.Wait()
	shell.Terminal.Close()
	server.Process.Kill()
	server.Wait()
}
