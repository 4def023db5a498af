package learn_test

import (
	"fmt"

	"github.com/caisson-dev/caisson/lsm/learn"
)

func ExampleRecorder() {
	var rec learn.Recorder
	rec.Note("/usr/bin/sort", learn.Execute)
	rec.Note("/usr/lib/x86_64-linux-gnu/libc.so.6", learn.Read)
	rec.Note("/tmp", learn.Make)
	rec.Note("/tmp/sort1", learn.Read|learn.Write)
	fmt.Println(rec.Profile().Go())
	// Output:
	// lsm.Landlock{
	// 	lsm.Execute("/usr/bin/sort"),
	// 	lsm.ReadWrite("/tmp"),
	// 	lsm.ReadOnly("/usr/lib/x86_64-linux-gnu/libc.so.6"),
	// }
}

func ExampleProfile() {
	monday := learn.Profile{{Path: "/etc/hosts", Access: learn.Read}, {Path: "/etc/resolv.conf", Access: learn.Read}}
	tuesday := learn.Profile{{Path: "/etc/nsswitch.conf", Access: learn.Read}}
	fmt.Print(learn.Merge(monday, tuesday))
	fmt.Print(learn.Merge(monday, tuesday).Fold(2))
	// Output:
	// read-only /etc/hosts
	// read-only /etc/nsswitch.conf
	// read-only /etc/resolv.conf
	// read-only /etc
}

func ExampleEntry() {
	e := learn.Entry{Path: "/srv", Access: learn.List | learn.Make}
	fmt.Println(e.Path, e.Access)
	// Output: /srv list|make
}

func ExampleAccess() {
	fmt.Println(learn.Read | learn.Execute)
	// Output: read|execute
}
