//go:build linux

package layer

import (
	"context"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Usage gives the bytes that a tree takes on disk, its directories included; a file with several names counts once (du(1)). No link is followed, no mount entered.
// Errors are [*Error].
func Usage(ctx context.Context, dir string) (int64, error) {
	t, err := openTree(dir, NoLimit)
	if err != nil {
		return 0, fail("measure", dir, err)
	}
	defer t.close()
	m := &measurer{packer: packer{ctx: ctx, tree: t, links: map[inode]string{}}}
	err = m.visit(t.root, m.directory)
	return m.bytes, fail("measure", m.entry, err)
}

type measurer struct {
	packer
	bytes int64
}

func (m *measurer) directory(v *visit) error {
	m.bytes += int64(v.st.Blocks) * 512
	if err := m.ctx.Err(); err != nil {
		return err
	}
	list, err := m.list(m.tree, v.node)
	for i := 0; err == nil && i < len(list); i++ {
		f := &list[i]
		if f.isDir() {
			err = m.down(v.node, f.name, m.directory)
			continue
		}
		id := inode{uint64(f.st.Dev), f.st.Ino}
		if _, counted := m.links[id]; !counted || f.st.Nlink == 1 {
			m.bytes += int64(f.st.Blocks) * 512
		}
		if f.st.Nlink > 1 {
			m.links[id] = ""
		}
	}
	return err
}

// Remove removes a tree as deep as any, like os.RemoveAll, also where an ordinary user has closed his own directories to himself. No link is followed and no mount
// entered. What is not there is removed. Errors are [*Error].
func Remove(dir string) error {
	parent, err := unix.Open(filepath.Dir(dir), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(parent)
		err = removeAll(parent, filepath.Base(dir))
	}
	if os.IsNotExist(err) {
		err = nil
	}
	return fail("remove", dir, err)
}
