//go:build linux

// Command net-map draws the networks of this machine: namespaces, their devices, addresses, and the cables between them.
//
//	go run ./examples/net-map          # in the terminal
//	go run ./examples/net-map -dot     # for Graphviz
//	go run ./examples/net-map -svg     # a picture
//
// Root sees all; others see what they may, and are told how much they do not.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/caisson-dev/caisson/netstack"
)

func main() {
	dot := flag.Bool("dot", false, "print a graph for Graphviz")
	svg := flag.Bool("svg", false, "print a picture")
	flag.Parse()
	all, err := netstack.Inspect()
	if err != nil {
		fmt.Fprintln(os.Stderr, "net-map:", err)
		os.Exit(1)
	}
	draw := text
	switch {
	case *dot:
		draw = graph
	case *svg:
		draw = picture
	}
	out := bufio.NewWriter(os.Stdout)
	draw(out, all)
	if err := out.Flush(); err != nil {
		fmt.Fprintln(os.Stderr, "net-map:", err)
		os.Exit(1)
	}
}

// title names a network.
func title(i int, n netstack.Network) string {
	switch {
	case i == 0:
		return "this network"
	case n.Path != "":
		return n.Path
	case len(n.PIDs) == 1:
		return fmt.Sprintf("network of process %d", n.PIDs[0])
	case len(n.PIDs) > 1:
		return fmt.Sprintf("network of process %d and %d more", n.PIDs[0], len(n.PIDs)-1)
	}
	return fmt.Sprintf("network %d", n.Inode)
}

// text draws in the terminal: each network with its devices, ports below their bridge.
func text(w io.Writer, all *netstack.Topology) {
	for i, n := range all.Networks {
		fmt.Fprintln(w, title(i, n))
		ports(w, all, n, 0, "  ")
		for _, r := range n.Routes {
			if d := n.Device(r.Device); d != nil && r.Via.IsValid() {
				fmt.Fprintf(w, "  → %v by %v on %s\n", r.To, r.Via, d.Name)
			}
		}
		for _, t := range n.NAT {
			fmt.Fprintf(w, "  ~ %v\n", t)
		}
		if n.NATUnseen {
			fmt.Fprintln(w, "  ~ its rules for NAT could not be looked at: that needs CAP_NET_ADMIN")
		}
		fmt.Fprintln(w)
	}
	if n := len(all.Unseen); n > 0 {
		fmt.Fprintf(w, "%d processes could not be looked at: that needs root\n", n)
	}
}

// ports prints the devices of a bridge; 0 is none.
func ports(w io.Writer, all *netstack.Topology, n netstack.Network, bridge int, indent string) {
	for _, d := range n.Devices {
		if d.Bridge != bridge {
			continue
		}
		fmt.Fprintf(w, "%s%s%s\n", indent, d, behind(all, d))
		if d.Kind == "bridge" || d.Kind == "bond" {
			ports(w, all, n, d.Index, indent+"├─ ")
		}
	}
}

// behind says what is at the other end of a device.
func behind(all *netstack.Topology, d netstack.Device) string {
	if d.Parent == nil {
		return ""
	}
	if d.Parent.Network < 0 {
		return " ⇄ a network that cannot be seen"
	}
	n := all.Networks[d.Parent.Network]
	other := n.Device(d.Parent.Index)
	if other == nil {
		return ""
	}
	name, _, _ := strings.Cut(other.String(), " (")
	return fmt.Sprintf(" ⇄ %s in %s", name, title(d.Parent.Network, n))
}

// cable is a connection between two devices, drawn once.
type cable struct{ from, to netstack.End }

// cables lists all of them: those between devices, and from ports to their bridge.
func cables(all *netstack.Topology) (list []cable) {
	seen := map[cable]bool{}
	for i, n := range all.Networks {
		for _, d := range n.Devices {
			here := netstack.End{Network: i, Index: d.Index}
			if d.Bridge != 0 {
				list = append(list, cable{here, netstack.End{Network: i, Index: d.Bridge}})
			}
			if d.Parent == nil || d.Parent.Network < 0 || all.Networks[d.Parent.Network].Device(d.Parent.Index) == nil || seen[cable{*d.Parent, here}] {
				continue
			}
			seen[cable{here, *d.Parent}] = true
			list = append(list, cable{here, *d.Parent})
		}
	}
	return list
}

// graph prints the map in the language of Graphviz.
func graph(w io.Writer, all *netstack.Topology) {
	fmt.Fprintln(w, "graph networks {\n\trankdir=LR; node [shape=box, style=rounded];")
	for i, n := range all.Networks {
		fmt.Fprintf(w, "\tsubgraph cluster_%d {\n\t\tlabel=%q;\n", i, title(i, n))
		for _, d := range n.Devices {
			fmt.Fprintf(w, "\t\tn%d_%d [label=%q];\n", i, d.Index, d.String())
		}
		for k, t := range n.NAT {
			fmt.Fprintf(w, "\t\trule%d_%d [shape=note, label=%q];\n", i, k, t.String())
		}
		fmt.Fprintln(w, "\t}")
	}
	for _, c := range cables(all) {
		fmt.Fprintf(w, "\tn%d_%d -- n%d_%d;\n", c.from.Network, c.from.Index, c.to.Network, c.to.Index)
	}
	fmt.Fprintln(w, "}")
}
