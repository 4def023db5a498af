package cgroups_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/cgroups"
	"github.com/caisson-dev/caisson/plan"
)

func ExampleLimits() {
	// caisson.New takes it as any other part.
	sandbox := plan.Build(cgroups.Limits{Memory: 512 * cgroups.MiB, Swap: cgroups.None, CPUs: 1.5, PIDs: 64})
	fmt.Print(sandbox)
}

func ExampleSwitch() {
	l := cgroups.Limits{OOMGroup: cgroups.On, CPUIdle: cgroups.Off} // all else is left alone
	fmt.Println(l.OOMGroup == cgroups.On, l.OOMKill)
	// Output: true 0
}

func ExampleIO() {
	l := cgroups.Limits{IOWeight: 50, IO: []cgroups.IO{
		{Device: "/dev/sda", ReadBPS: 10 * cgroups.MiB, WriteIOPS: 100},
		{Device: "8:16", WriteBPS: cgroups.NoLimit},
	}}
	fmt.Println(len(l.IO))
	// Output: 2
}

func ExampleDevice() {
	gpu := cgroups.Device{Kind: 'c', Major: 195, Minor: cgroups.Any, Access: "rw"}
	l := cgroups.Limits{Devices: append(cgroups.DockerDevices(), gpu)}
	fmt.Println(l.Devices[len(l.Devices)-1])
	// Output: c 195:* rw
}

func ExampleParseDevice() {
	d, err := cgroups.ParseDevice("b 8:* r")
	fmt.Println(d.Major, d.Minor == cgroups.Any, err)
	// Output: 8 true <nil>
}

func ExampleHugePages() {
	fmt.Println(cgroups.Limits{HugePages: []cgroups.HugePages{{Size: "2MB", Bytes: 64 * cgroups.MiB}}}.HugePages)
	// Output: [{2MB 67108864}]
}

func ExampleRDMA() {
	fmt.Println(cgroups.Limits{RDMA: []cgroups.RDMA{{Device: "mlx5_0", Handles: 2, Objects: 2000}}}.RDMA)
	// Output: [{mlx5_0 2 2000}]
}

func ExampleMisc() {
	fmt.Println(cgroups.Limits{Misc: []cgroups.Misc{{Name: "sev", Max: 3}}}.Misc)
	// Output: [{sev 3}]
}

func ExampleDMem() {
	fmt.Println(cgroups.Limits{DMem: []cgroups.DMem{{Region: "drm/0000:03:00.0/vram0", Max: cgroups.GiB}}}.DMem[0].Region)
	// Output: drm/0000:03:00.0/vram0
}

func ExampleNetPriority() {
	fmt.Println(cgroups.Limits{NetClass: 0x100001, NetPriority: []cgroups.NetPriority{{Interface: "eth0", Priority: 5}}}.NetPriority)
	// Output: [{eth0 5}]
}

func ExampleFile() {
	// What has no field is written as it is; the kernel's release agent and the like are refused.
	err := plan.Build(cgroups.Limits{Files: []cgroups.File{{Name: "release_agent", Value: "/bin/evil"}}}).Err()
	var e *cgroups.LimitError
	fmt.Println(errors.As(err, &e), e)
	// Output: true Files "release_agent": is no file of a limit
}

func ExampleLimitError() {
	err := plan.Build(cgroups.Limits{CPUQuota: 20 * time.Millisecond}).Err()
	var e *cgroups.LimitError
	fmt.Println(errors.As(err, &e), e, errors.Is(err, syscall.EINVAL))
	// Output: true CPUQuota "20ms": needs CPUPeriod true
}

func ExampleNameError() {
	_, err := cgroups.Open("/jobs/../../etc")
	var e *cgroups.NameError
	fmt.Println(errors.As(err, &e), err)
	// Output: true group name "/jobs/../../etc": is no name
}

func ExampleParseBytes() {
	for _, s := range []string{"512m", "1.5g", "1Gi", "-1"} {
		fmt.Println(cgroups.ParseBytes(s))
	}
	// Output:
	// 536870912 <nil>
	// 1610612736 <nil>
	// 1073741824 <nil>
	// 0 bytes "-1": is negative
}

func ExampleParseQuantity() {
	fmt.Println(cgroups.ParseQuantity("512M"))
	fmt.Println(cgroups.ParseQuantity("512Mi"))
	// Output:
	// 512000000 <nil>
	// 536870912 <nil>
}

func ExampleParseCPUs() {
	fmt.Println(cgroups.ParseCPUs("250m"))
	// Output: 0.25 <nil>
}

func ExampleGroup() {
	own, err := cgroups.Own()
	if err != nil {
		log.Fatal(err)
	}
	defer own.Close()
	batch, err := own.Create("batch", cgroups.Limits{CPUWeight: 10, Memory: 2 * cgroups.GiB})
	if err != nil {
		log.Fatal(err)
	}
	defer batch.Delete() // with all that still runs in it
	cmd := exec.Command("make")
	if err := cmd.Start(); err != nil {
		log.Fatal(err)
	}
	if err := batch.Add(cmd.Process.Pid); err != nil {
		log.Fatal(err)
	}
	cmd.Wait()
}

// The group of a running sandbox is found by the pid of its command, as long as that has not been waited for.
func ExampleOf() {
	pid := os.Getpid() // of a caisson.Process: Pid
	g, err := cgroups.Of(pid)
	if err != nil {
		log.Fatal(err)
	}
	defer g.Close()
	if err := g.Set(cgroups.Limits{Memory: cgroups.GiB}); err != nil {
		log.Print(err)
	}
}

func ExampleGroup_Freeze() {
	g, err := cgroups.Open("/batch")
	if err != nil {
		return
	}
	defer g.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := g.Freeze(ctx); err != nil {
		log.Print(err)
	}
	defer g.Thaw()
}

func ExampleStats() {
	g, err := cgroups.Own()
	if err != nil {
		log.Fatal(err)
	}
	defer g.Close()
	s, err := g.Stats()
	if err != nil {
		log.Fatal(err)
	}
	if s.Memory.Known {
		fmt.Println(s.Memory.Current, s.Memory.Kills)
	}
	fmt.Println(s.CPU.Usage, s.PIDs.Current)
	for _, io := range s.IO {
		fmt.Printf("%d:%d %d %d\n", io.Major, io.Minor, io.ReadBytes, io.WrittenBytes)
	}
}

func ExamplePressure() {
	g, err := cgroups.Own()
	if err != nil {
		log.Fatal(err)
	}
	defer g.Close()
	p, err := g.Pressure(cgroups.Memory)
	if errors.Is(err, errors.ErrUnsupported) {
		return // a host of version 1
	}
	fmt.Println(p.Some.Avg10, p.Full.Total)
}

func ExampleWatcher() {
	w, err := cgroups.Watch()
	if err != nil {
		log.Fatal(err)
	}
	defer w.Close()
	g, err := cgroups.Open("/batch")
	if err != nil {
		return
	}
	defer g.Close()
	if err := w.Add(g); err != nil {
		log.Fatal(err)
	}
	for {
		e, err := w.Next(context.Background())
		if err != nil {
			log.Fatal(err)
		}
		switch e.Kind {
		case cgroups.OOMKill:
			fmt.Println(e.Group, "processes killed for lack of memory:", e.Count)
		case cgroups.Empty:
			return
		}
	}
}

func ExampleEvent() {
	fmt.Println(cgroups.Event{Kind: cgroups.UnderStress, Resource: cgroups.CPU}.Kind)
	// Output: pressure
}

func ExampleError() {
	_, err := cgroups.Open("/no such group")
	var e *cgroups.Error
	fmt.Println(errors.As(err, &e), errors.Is(err, os.ErrNotExist))
	// Output: true true
}

// A service without Delegate=yes, or a program that somebody has started from a shell: systemd gives it a scope of its own, below which its sandboxes have
// their groups.
func ExampleSystemd() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	all := cgroups.Limits{Memory: 8 * cgroups.GiB, CPUs: 4} // of all sandboxes together
	unit, err := cgroups.Systemd{User: os.Geteuid() != 0, Slice: "sandboxes.slice", Limits: all}.Start(ctx)
	if errors.Is(err, errors.ErrUnsupported) {
		return // no systemd here
	}
	if err != nil {
		log.Fatal(err)
	}
	defer unit.Close()
	sandbox := caisson.New(cgroups.Limits{Below: unit.Group, Memory: 512 * cgroups.MiB, PIDs: 64})
	if err := sandbox.Command("make").Run(); err != nil {
		log.Fatal(err)
	}
}

// What all sandboxes of a batch have used, and their end.
func ExampleUnit() {
	ctx := context.Background()
	batch, err := cgroups.Systemd{Unit: "batch.slice"}.Open(ctx)
	if err != nil {
		return // there is none
	}
	stats, err := batch.Stats()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(stats.CPU.Usage, stats.PIDs.Current)
	if err := batch.Stop(ctx); err != nil {
		log.Fatal(err)
	}
}

// Half of the memory from now on. A later systemctl daemon-reload leaves it so.
func ExampleUnit_Set() {
	ctx := context.Background()
	batch, err := cgroups.Systemd{Unit: "batch.slice"}.Open(ctx)
	if err != nil {
		return // there is none
	}
	defer batch.Close()
	if err := batch.Set(ctx, cgroups.Limits{Memory: 4 * cgroups.GiB}); err != nil {
		log.Fatal(err)
	}
}
