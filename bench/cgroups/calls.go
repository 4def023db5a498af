package main

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

//go:embed calls/calls.c
var source []byte

// calls prints what the kernel alone takes, by a program in C.
func calls(rounds int) error {
	fmt.Printf("\nthe calls in C, medians of %d rounds\n", rounds)
	if _, err := exec.LookPath("gcc"); err != nil {
		fmt.Println("not measured:", err)
		return nil
	}
	if _, err := os.Stat("/sys/fs/cgroup/memory/tasks"); err != nil {
		fmt.Println("not measured, memory is no hierarchy of version 1:", err)
		return nil
	}
	dir, err := os.MkdirTemp("", "cgroups")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	file, program := filepath.Join(dir, "calls.c"), filepath.Join(dir, "calls")
	if err := os.WriteFile(file, source, 0o600); err != nil {
		return err
	}
	if out, err := exec.Command("gcc", "-O1", "-Wall", "-o", program, file).CombinedOutput(); err != nil {
		return fmt.Errorf("gcc: %w\n%s", err, out)
	}
	cmd := exec.Command(program, strconv.Itoa(rounds))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}
