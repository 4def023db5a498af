package lsm_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/lsm"
)

func ExampleLandlock() {
	sandbox := caisson.New(lsm.Landlock{
		lsm.Execute("/usr"), lsm.Execute("/bin", "/lib", "/lib64").Optional(),
		lsm.ReadOnly("/etc/ssl").Optional(), lsm.ReadWrite("/tmp"),
		lsm.Connect(443), lsm.Bind(), lsm.ScopeSignals(), lsm.ScopeAbstractSockets(),
	})
	var lacks *lsm.RuleError
	if errors.As(sandbox.Err(), &lacks) {
		fmt.Printf("this kernel has Landlock ABI %d, and %v needs %d\n", lacks.Have, lacks.Rule, lacks.ABI)
		return
	}
	out, err := sandbox.Command("cat", "/etc/passwd").CombinedOutput() // Permission denied
	fmt.Printf("%s%v\n", out, err)
}

func ExampleBestEffort() {
	sandbox := caisson.New(lsm.BestEffort{lsm.Execute("/usr", "/bin", "/lib").Optional(), lsm.Connect(443)})
	cmd := sandbox.Command("true")
	if err := cmd.Run(); err != nil {
		log.Fatal(err)
	}
	fmt.Println(cmd.Result().Detail) // what was not restricted, or nothing
}

func ExampleLandlock_Prepare() {
	rules := lsm.Landlock{lsm.Execute("/usr"), lsm.Execute("/bin", "/lib", "/lib64").Optional()}
	set, err := rules.Prepare() // the paths are resolved now, once
	if err != nil {
		log.Fatal(err)
	}
	defer set.Close()
	sandbox := caisson.New(set)
	for range 1000 {
		if err := sandbox.Command("true").Run(); err != nil {
			log.Fatal(err)
		}
	}
}

func ExampleLandlock_RestrictSelf() {
	// From here on the program may read its data and talk to one port, and so may all that it executes.
	rules := lsm.Landlock{lsm.ReadOnly("/srv/data"), lsm.Connect(5432), lsm.Bind()}
	if err := rules.RestrictSelf(); err != nil {
		log.Fatal(err)
	}
}

func ExampleRule_String() {
	fmt.Println(lsm.ReadOnly("/usr", "/lib").Optional())
	fmt.Println(lsm.Connect(80, 443))
	// Output:
	// read-only /usr /lib (optional)
	// connect 80 443
}

func ExampleActive() {
	modules, err := lsm.Active()
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range modules {
		fmt.Println(m.Name, m.Mode)
	}
}

func ExampleLabels() {
	labels, err := lsm.Labels(1)
	if err != nil {
		log.Fatal(err)
	}
	for _, l := range labels {
		fmt.Println(l.Module, l) // apparmor unconfined
	}
}

func ExampleAppArmor() {
	profile := lsm.DockerDefault("caisson-default")
	if err := profile.Load(context.Background()); err != nil { // once, as root
		log.Fatal(err)
	}
	out, err := caisson.New(lsm.AppArmor("caisson-default")).Command("id").Output()
	fmt.Printf("%s%v\n", out, err)
}

func ExampleProfile_Text() {
	text, err := lsm.Profile{
		Name:         "reader",
		Files:        []lsm.FileRule{{Path: "/usr/**", Perms: "rmix"}, {Path: "/srv/data/**", Perms: "r"}, {Deny: true, Path: "/srv/data/keys/**", Perms: "rw"}},
		Capabilities: []lsm.CapabilityRule{{Names: []string{"net_bind_service"}}},
		Network:      []lsm.NetworkRule{{Family: "inet", Type: "stream"}},
	}.Text()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(text)
	// Output:
	// #include <tunables/global>
	// profile "reader" {
	//   network inet stream,
	//   capability net_bind_service,
	//   file "/usr/**" rmix,
	//   file "/srv/data/**" r,
	//   deny file "/srv/data/keys/**" rw,
	// }
}

func ExampleSELinux() {
	process, file, err := lsm.ContainerContexts()
	if err != nil {
		log.Fatal(err)
	}
	mine, err := lsm.ReserveCategories()
	if err != nil {
		log.Fatal(err)
	}
	defer mine.Close()
	if err := lsm.Relabel("/srv/volume", file.With(mine.Categories)); err != nil { // docker run -v /srv/volume:...:Z
		log.Fatal(err)
	}
	sandbox := caisson.New(lsm.SELinux{Process: process.With(mine.Categories)})
	out, err := sandbox.Command("ls", "/srv/volume").Output()
	fmt.Printf("%s%v\n", out, err)
}

func ExampleContext_With() {
	c, err := lsm.ParseContext("system_u:object_r:container_file_t:s0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(c.With(lsm.Categories{A: 513, B: 7}))
	// Output: system_u:object_r:container_file_t:s0:c7,c513
}
