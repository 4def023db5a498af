package main

import (
	"math/rand/v2"
	"runtime"
)

// node is what the live heap is made of: half pointers, half data.
type node struct {
	next [8]*node
	data [8]uint64
}

// liveHeap makes so many GiB of nodes that point at each other, touches all of them, and waits until the garbage
// collection that this caused is over.
func liveHeap(gib int) []*node {
	const size, each = 128, 8192 // a chunk is 1 MiB
	chunks := make([]*node, 0, gib<<30/(size*each))
	all := make([][]node, 0, cap(chunks))
	for range cap(chunks) {
		c := make([]node, each)
		all = append(all, c)
		chunks = append(chunks, &c[0])
		for i := range c {
			c[i].data[0] = uint64(i)
			for k := range c[i].next {
				c[i].next[k] = &all[rand.IntN(len(all))][rand.IntN(each)]
			}
		}
	}
	runtime.GC()
	runtime.GC()
	return chunks
}
