//go:build linux

package initprog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func encode(records ...Record) []byte {
	var b []byte
	for _, r := range records {
		b = binary.NativeEndian.AppendUint32(b, uint32(r.Kind))
		b = binary.NativeEndian.AppendUint32(b, uint32(r.Value))
	}
	return b
}

func TestReadRecord(t *testing.T) {
	want := []Record{{Executed, 2}, {Failed, 2}, {Ended, 0}, {Ended, 0xff00}, {Ended, 9}, {Ended, 11 | 0x80}, {Ended, 64}}
	r := iotest.OneByteReader(bytes.NewReader(encode(want...)))
	for _, w := range want {
		got, err := ReadRecord(r)
		require.NoError(t, err)
		require.Equal(t, w, got)
	}
	_, err := ReadRecord(r)
	require.Equal(t, io.EOF, err)
}

func TestReadRecordShort(t *testing.T) {
	for n := 1; n < 8; n++ {
		_, err := ReadRecord(bytes.NewReader(encode(Record{Executed, 2})[:n]))
		require.Equal(t, io.ErrUnexpectedEOF, err)
	}
	broken := errors.New("broken")
	_, err := ReadRecord(iotest.ErrReader(broken))
	require.Equal(t, broken, err)
}

func TestReadRecordRefused(t *testing.T) {
	for _, r := range []Record{
		{}, {0, 1}, {4, 1}, {-1, 1}, {1 << 24, 1},
		{Executed, 0}, {Executed, -1},
		{Failed, 0}, {Failed, -2}, {Failed, 4096},
		{Ended, -1}, {Ended, 0x10000}, {Ended, 0x0180}, {Ended, 0x80},
		{Ended, 0x137f}, {Ended, 0xffff}, {Ended, 0x7f}, {Ended, 65},
	} {
		got, err := ReadRecord(bytes.NewReader(encode(r)))
		require.ErrorIs(t, err, unix.EINVAL, "%v", r)
		require.Zero(t, got)
		var typed *Error
		require.ErrorAs(t, err, &typed)
		require.Equal(t, "record", typed.Op)
	}
	_, err := ReadRecord(bytes.NewReader(encode(Record{9, 7})))
	require.EqualError(t, err, "caisson-init: record: Kind(9) with value 7: invalid argument")
}

func TestKindString(t *testing.T) {
	for kind, want := range map[Kind]string{0: "Kind(0)", Executed: "executed", Failed: "failed", Ended: "ended", -1: "Kind(-1)"} {
		require.Equal(t, want, kind.String())
	}
}

// FuzzReadRecord: what is read is what was there, and what is refused for its
// content is no record that init writes.
func FuzzReadRecord(f *testing.F) {
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := bytes.NewReader(stream)
		var read []byte
		for {
			rec, err := ReadRecord(r)
			if err == nil {
				require.Contains(t, []string{"executed", "failed", "ended"}, rec.Kind.String())
				read = append(read, encode(rec)...)
				continue
			}
			require.Zero(t, rec)
			rest := len(stream) - len(read)
			switch {
			case err == io.EOF:
				require.Zero(t, rest)
			case err == io.ErrUnexpectedEOF:
				require.Less(t, rest, 8)
				require.Positive(t, rest)
			default:
				require.ErrorIs(t, err, unix.EINVAL)
				require.GreaterOrEqual(t, rest, 8)
			}
			break
		}
		require.Equal(t, stream[:len(read)], append([]byte{}, read...))
	})
}
