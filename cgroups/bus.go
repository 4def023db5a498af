//go:build linux

package cgroups

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"

	"github.com/godbus/dbus/v5"
)

const (
	systemdName = "org.freedesktop.systemd1"
	managerName = systemdName + ".Manager"
	managerPath = dbus.ObjectPath("/org/freedesktop/systemd1")
	systemBus   = "unix:path=/run/dbus/system_bus_socket"
)

// bus is a connection by which systemd is asked once.
type bus struct {
	*dbus.Conn
	owner   string // the connection that systemd has
	signals chan *dbus.Signal
}

// dial connects. Package dbus could do it, too; but it executes the programs that an address names, or dbus-launch where there is none.
func (s Systemd) dial(ctx context.Context) (*bus, error) {
	name, err := socket(s.address())
	if err != nil {
		return nil, err
	}
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", name)
	if err != nil {
		return nil, err
	}
	conn, err := dbus.DialUnix(c.(*net.UnixConn), dbus.WithContext(ctx)) // it is closed with the context, whatever it waits for
	if err != nil {
		c.Close()
		return nil, err
	}
	b := &bus{Conn: conn, signals: make(chan *dbus.Signal, 64)}
	if err := b.hello(ctx); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

func (s Systemd) address() string {
	switch {
	case s.Address != "":
		return s.Address
	case !s.User:
		return systemBus
	}
	run := cmp.Or(os.Getenv("XDG_RUNTIME_DIR"), "/run/user/"+strconv.Itoa(os.Geteuid()))
	return cmp.Or(os.Getenv("DBUS_SESSION_BUS_ADDRESS"), "unix:path="+url.PathEscape(path.Join(run, "bus")))
}

// socket gives the name of the first Unix socket in an address of D-Bus: "unix:path=/run/user/1000/bus,guid=0123;unix:abstract=x".
func socket(address string) (string, error) {
	for one := range strings.SplitSeq(address, ";") {
		rest, ok := strings.CutPrefix(one, "unix:")
		if !ok {
			continue
		}
		for pair := range strings.SplitSeq(rest, ",") {
			key, value, _ := strings.Cut(pair, "=")
			value, err := url.PathUnescape(value)
			if err != nil || value == "" || strings.ContainsRune(value, 0) {
				break
			}
			switch key {
			case "path":
				return value, nil
			case "abstract":
				return "@" + value, nil
			}
		}
	}
	return "", &reason{fmt.Sprintf("%q is no address of a bus with a Unix socket", address), syscall.EINVAL}
}

// hello says who we are, and finds systemd. Signals of others are not listened to: on the system's bus anybody may send one.
func (b *bus) hello(ctx context.Context) error {
	if err := b.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Geteuid()))}); err != nil {
		return err
	}
	if err := b.Hello(); err != nil {
		return err
	}
	if err := b.findOwner(ctx); err != nil {
		return err
	}
	b.Signal(b.signals)
	err := b.AddMatchSignalContext(ctx, dbus.WithMatchSender(b.owner), dbus.WithMatchInterface(managerName), dbus.WithMatchMember("JobRemoved"))
	if err != nil {
		return err
	}
	return b.manager(ctx, "Subscribe").Err
}

// findOwner finds the connection that systemd has. It comes to a bus that has just been started a moment later, for which the bus waits if it is asked to start it.
func (b *bus) findOwner(ctx context.Context) error {
	ask := func(method string, args ...any) *dbus.Call {
		return b.BusObject().CallWithContext(ctx, "org.freedesktop.DBus."+method, 0, args...)
	}
	err := ask("GetNameOwner", systemdName).Store(&b.owner)
	var answer dbus.Error
	if errors.As(err, &answer) && answer.Name == "org.freedesktop.DBus.Error.NameHasNoOwner" {
		ask("StartServiceByName", systemdName, uint32(0))
		err = ask("GetNameOwner", systemdName).Store(&b.owner)
	}
	return err
}

func (b *bus) manager(ctx context.Context, method string, args ...any) *dbus.Call {
	return b.Object(b.owner, managerPath).CallWithContext(ctx, managerName+"."+method, 0, args...)
}

// job calls a method that begins a job, and waits for its end.
func (b *bus) job(ctx context.Context, method string, args ...any) error {
	var job dbus.ObjectPath
	if err := b.manager(ctx, method, args...).Store(&job); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case s, ok := <-b.signals:
			if !ok {
				return io.ErrUnexpectedEOF
			}
			if result, ok := b.removed(s, job); ok {
				return jobError(result)
			}
		}
	}
}

// removed reads the signal that a job has ended: its id, object, unit and result.
func (b *bus) removed(s *dbus.Signal, want dbus.ObjectPath) (result string, ok bool) {
	var id uint32
	var job dbus.ObjectPath
	var unit string
	if s.Sender != b.owner || s.Name != managerName+".JobRemoved" || dbus.Store(s.Body, &id, &job, &unit, &result) != nil {
		return "", false
	}
	return result, job == want
}

func jobError(result string) error {
	e := syscall.EIO // failed, dependency and the like
	switch result {
	case "done":
		return nil
	case "canceled":
		e = syscall.ECANCELED
	case "timeout":
		e = syscall.ETIMEDOUT
	}
	return &reason{fmt.Sprintf("systemd's job ended with the result %q", result), e}
}

// unit gives a unit's object, and the interface of its kind.
func (b *bus) unit(ctx context.Context, name string) (object dbus.ObjectPath, kind string, err error) {
	_, kind, _ = cutLast(name, ".")
	kind = systemdName + "." + strings.ToUpper(kind[:1]) + kind[1:]
	err = b.manager(ctx, "GetUnit", name).Store(&object)
	return object, kind, err
}

// groupOf gives the path of a unit's group.
func (b *bus) groupOf(ctx context.Context, unit string) (p string, err error) {
	object, kind, err := b.unit(ctx, unit)
	if err != nil {
		return "", err
	}
	err = b.Object(b.owner, object).CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, kind, "ControlGroup").Store(&p)
	if err == nil && p == "" {
		err = &reason{"the unit has no group", errors.ErrUnsupported}
	}
	return p, err
}

// busErrors are the names of D-Bus and systemd that mean an errno. All others are EPROTO.
var busErrors = map[string]error{
	"org.freedesktop.DBus.Error.AccessDenied":                     syscall.EACCES,
	"org.freedesktop.DBus.Error.InteractiveAuthorizationRequired": syscall.EACCES,
	"org.freedesktop.DBus.Error.AuthFailed":                       syscall.EACCES,
	"org.freedesktop.DBus.Error.NameHasNoOwner":                   errors.ErrUnsupported,
	"org.freedesktop.DBus.Error.ServiceUnknown":                   errors.ErrUnsupported,
	"org.freedesktop.DBus.Error.UnknownMethod":                    errors.ErrUnsupported,
	"org.freedesktop.DBus.Error.InvalidArgs":                      syscall.EINVAL,
	"org.freedesktop.DBus.Error.PropertyReadOnly":                 syscall.EINVAL,
	"org.freedesktop.DBus.Error.NoReply":                          syscall.ETIMEDOUT,
	"org.freedesktop.DBus.Error.Timeout":                          syscall.ETIMEDOUT,
	"org.freedesktop.DBus.Error.LimitsExceeded":                   syscall.ENOBUFS,
	"org.freedesktop.DBus.Error.UnixProcessIdUnknown":             syscall.ESRCH,
	"org.freedesktop.systemd1.NoSuchProcess":                      syscall.ESRCH,
	"org.freedesktop.systemd1.NoSuchUnit":                         syscall.ENOENT,
	"org.freedesktop.systemd1.UnitExists":                         syscall.EEXIST,
	"org.freedesktop.systemd1.BadUnitSetting":                     syscall.EINVAL,
}

// failed is an error of what was asked of systemd.
func (s Systemd) failed(ctx context.Context, op string, err error) error {
	if err == nil {
		return nil
	}
	e := &Error{Op: op, Value: s.Unit, Err: err}
	var answer dbus.Error
	var dialing *net.OpError
	switch {
	case ctx.Err() != nil:
		e.Err = ctx.Err()
	case errors.As(err, &answer):
		e.Err = &reason{answer.Name + ": " + answer.Error(), syscall.EPROTO}
		if known := busErrors[answer.Name]; known != nil {
			e.Err = &reason{answer.Error(), known}
		}
		if errors.Is(e.Err, syscall.EACCES) && !s.User {
			e.Hint = "the system's manager asks for root; Systemd.User is the caller's own manager"
		}
	case errors.As(err, &dialing) && (errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED)):
		e.Err = &reason{"there is no bus: " + err.Error(), errors.Join(dialing.Err, errors.ErrUnsupported)}
	case errors.As(err, &dialing):
		e.Err = dialing.Err
	case errors.Is(err, dbus.ErrClosed) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		e.Err = &reason{"the bus has closed the connection", syscall.ECONNRESET}
	}
	return e
}
