//go:build linux

package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"

	"github.com/caisson-dev/caisson/netstack"
)

// Sizes in the picture, in pixels.
const (
	boxWidth = 420
	line     = 22
	gap      = 24
	column   = boxWidth + 160
)

// picture draws a box for each network, the own one on the left, the others on the right, and curves for cables.
func picture(w io.Writer, all *netstack.Topology) {
	tops, height := layout(all)
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="13">`+"\n", column+boxWidth+2*gap, height)
	for i, n := range all.Networks {
		x, y := left(i), tops[i]
		fmt.Fprintf(w, `<rect x="%d" y="%d" width="%d" height="%d" rx="8" fill="#f4f6fa" stroke="#557"/>`+"\n", x, y, boxWidth, tall(n))
		label(w, x+10, y+17, "bold", title(i, n))
		for k, d := range n.Devices {
			label(w, x+22, y+17+(k+1)*line, "normal", d.String())
		}
		for k, t := range n.NAT {
			label(w, x+22, y+17+(len(n.Devices)+k+1)*line, "normal", "~ "+t.String())
		}
	}
	for _, c := range cables(all) {
		x1, y1 := place(all, tops, c.from)
		x2, y2 := place(all, tops, c.to)
		fmt.Fprintf(w, `<path d="M%d %d C%d %d %d %d %d %d" fill="none" stroke="#c60" stroke-width="1.5"/>`+"\n", x1, y1, x1+side(x1), y1, x2+side(x2), y2, x2, y2)
	}
	fmt.Fprintln(w, "</svg>")
}

// layout gives the top of each box, and the height of all.
func layout(all *netstack.Topology) (tops []int, height int) {
	right := gap
	for i, n := range all.Networks {
		if i == 0 {
			tops = append(tops, gap)
			height = 2*gap + tall(n)
			continue
		}
		tops = append(tops, right)
		right += tall(n) + gap
	}
	return tops, max(height, right)
}

func tall(n netstack.Network) int { return (len(n.Devices) + len(n.NAT) + 1) * line }

func left(i int) int {
	if i == 0 {
		return gap
	}
	return gap + column
}

// place is where a device's cable begins: at the right of the left box, at the left of the others.
func place(all *netstack.Topology, tops []int, e netstack.End) (x, y int) {
	x = left(e.Network)
	if e.Network == 0 {
		x += boxWidth
	}
	for k, d := range all.Networks[e.Network].Devices {
		if d.Index == e.Index {
			y = tops[e.Network] + 12 + (k+1)*line
		}
	}
	return x, y
}

// side is the direction in which a curve leaves its box.
func side(x int) int {
	if x > column {
		return -60
	}
	return 60
}

func label(w io.Writer, x, y int, weight, text string) {
	var b strings.Builder
	xml.EscapeText(&b, []byte(text))
	fmt.Fprintf(w, `<text x="%d" y="%d" font-weight="%s">%s</text>`+"\n", x, y, weight, b.String())
}
