package caps_test

import (
	"errors"
	"fmt"
	"log"
	"os"
	"syscall"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/caps"
	"github.com/caisson-dev/caisson/namespaces"
)

// A sandbox whose command may listen on port 80 and has no other right of root's.
func ExampleBound() {
	web := caisson.New(
		namespaces.User|namespaces.PID|namespaces.Net,
		caps.Drop(caps.All).Add(caps.NetBindService),
	)
	fmt.Println(web.Err())
	// Output: <nil>
}

// The flags --cap-add and --cap-drop of docker run.
func ExampleDocker() {
	add, err := caps.Parse("NET_ADMIN")
	if err != nil {
		log.Fatal(err)
	}
	drop, err := caps.Parse("CAP_NET_RAW,mknod")
	if err != nil {
		log.Fatal(err)
	}
	bound := caps.Docker(add, drop)
	fmt.Println(bound.Keep)
	fmt.Println(bound.Need)
	// Output:
	// cap_chown,cap_dac_override,cap_fowner,cap_fsetid,cap_kill,cap_setgid,cap_setuid,cap_setpcap,cap_net_bind_service,cap_sys_chroot,cap_audit_write,cap_setfcap
	// cap_net_admin
}

// An ordinary user inside who may listen on port 80 all the same.
func ExampleBound_Raise() {
	web := caisson.New(
		caisson.User{UID: 1000, GID: 1000},
		namespaces.User|namespaces.PID,
		caps.Drop(caps.All).Raise(caps.NetBindService),
	)
	fmt.Println(web.Err())
	// Output: <nil>
}

func ExampleSet() {
	s := caps.NetAdmin | caps.NetRaw
	fmt.Println(s, s.Has(caps.NetRaw), s&^caps.NetRaw, s.Names())
	fmt.Println(caps.All &^ caps.SysAdmin)
	// Output:
	// cap_net_admin,cap_net_raw true cap_net_admin [CAP_NET_ADMIN CAP_NET_RAW]
	// all,!cap_sys_admin
}

func ExampleSet_Each() {
	for c := range (caps.Kill | caps.Chown).Each() {
		fmt.Println(c)
	}
	// Output:
	// cap_chown
	// cap_kill
}

func ExampleParse() {
	s, err := caps.Parse("000001ffffffffff")
	fmt.Println(s.Len(), err)
	_, err = caps.Parse("NET_ADMIN,ROOT")
	var e *caps.NameError
	fmt.Println(err, errors.As(err, &e))
	// Output:
	// 41 <nil>
	// "ROOT" is no capability true
}

func ExampleParseText() {
	s, err := caps.ParseText("cap_net_raw,cap_net_admin=ep cap_kill+p")
	fmt.Println(s.Effective, s.Permitted, err)
	fmt.Println(s.Text())
	// Output:
	// cap_net_admin,cap_net_raw cap_kill,cap_net_admin,cap_net_raw <nil>
	// cap_net_admin,cap_net_raw=ep cap_kill+p
}

func ExampleState() {
	s := caps.State{Permitted: caps.NetRaw, Effective: caps.NetRaw, Bounding: caps.All &^ caps.SysAdmin, NoNewPrivs: true}
	fmt.Println(s)
	// Output: cap_net_raw=ep [!cap_sys_admin] no_new_privs
}

func ExampleCurrent() {
	s, err := caps.Current()
	if err != nil {
		log.Fatal(err)
	}
	if !s.Effective.Has(caps.SysAdmin) {
		fmt.Println("not root of this machine")
	}
}

// A program that gives up all rights for good.
func ExampleState_Install() {
	err := caps.State{NoNewPrivs: true}.Install()
	if errors.Is(err, errors.ErrUnsupported) {
		log.Fatal("built with cgo")
	}
}

func ExampleMissing() {
	s := caps.State{Effective: caps.DockerDefault}
	for _, need := range caps.Missing("setns", syscall.EPERM, s) {
		fmt.Println(need.Any, need.For)
	}
	// Output: cap_sys_admin to enter a namespace
}

func ExampleFile() {
	c, err := caps.ParseFile("cap_net_raw=ep")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(c.Permitted, c.Effective)
	if err := c.Write("/usr/local/bin/ping"); err != nil {
		fmt.Println(errors.Is(err, os.ErrNotExist))
	}
	// Output:
	// cap_net_raw true
	// true
}

func ExampleSecurebits() {
	fmt.Println((caps.NoRoot | caps.NoSetuidFixup).Locked())
	// Output: SECBIT_NOROOT|SECBIT_NOROOT_LOCKED|SECBIT_NO_SETUID_FIXUP|SECBIT_NO_SETUID_FIXUP_LOCKED
}

func ExampleLackError() {
	bound := caps.Drop(caps.All).Add(1 << 60)
	err := caisson.New(bound).Err()
	var e *caps.LackError
	fmt.Println(errors.As(err, &e), errors.Is(err, syscall.EPERM), errors.Is(err, errors.ErrUnsupported))
	// Output: true true true
}

func ExampleNoNewPrivs() {
	s := caisson.New(caps.NoNewPrivs{}, caps.Keep(caps.DockerDefault))
	fmt.Println(s.Err())
	// Output: <nil>
}
