//go:build linux

package vm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Where Machine.Systemd is given, the guest's init makes the root as always, and then becomes systemd, which starts the init's
// program once more, as a service, to run the commands.

const (
	handover = "/run/vm"     // what the service finds: the program and the job
	service  = "vm-commands" // the program's name as a service
	unitsDir = "/etc/systemd/system/"
)

// InGuest says whether the running program is the guest's init, or what systemd started in its place. It has to call [Guest] then.
func InGuest() bool { return os.Getpid() == 1 || os.Args[0] == service }

// systemdFiles are what it takes to have systemd, its bus, and nothing else. The bus of Debian's package would wait for the whole early boot. Without
// a machine id this would be a first boot, with all that belongs to it.
var systemdFiles = map[string]string{
	"/etc/machine-id": "c1d426aac1d426aac1d426aac1d426aa\n",
	unitsDir + "vm.service": `[Unit]
DefaultDependencies=no
Requires=dbus.service
After=dbus.service
[Service]
ExecStart=@` + handover + `/init ` + service + `
StandardError=tty
TTYPath=/dev/console
OOMPolicy=continue
`,
	unitsDir + "dbus.service.d/vm.conf": "[Unit]\nDefaultDependencies=no\n",
	unitsDir + "dbus.socket.d/vm.conf":  "[Unit]\nDefaultDependencies=no\n",
	"/etc/systemd/system.conf":          "[Manager]\nDefaultStandardOutput=null\n",
}

// becomeSystemd is the end of the init as process 1.
func (j job) becomeSystemd(description []byte) error {
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	err = errors.Join(put(handover+"/init", program, 0o755), put(handover+"/job", description, 0o600))
	for name, text := range systemdFiles {
		err = errors.Join(err, put(name, []byte(text), 0o644))
	}
	if err != nil {
		return err
	}
	const systemd = "/lib/systemd/systemd"
	args := []string{systemd, "--unit=vm.service", "--log-target=console", "--log-level=notice", "--show-status=no"}
	return fmt.Errorf("%s: %w", systemd, unix.Exec(systemd, args, []string{"PATH=/usr/sbin:/usr/bin", "TERM=dumb"}))
}

func put(name string, data []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, data, mode)
}
