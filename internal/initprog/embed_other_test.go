//go:build linux && !amd64 && !arm64

package initprog

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOpenUnsupported(t *testing.T) {
	f, err := Open()
	require.Nil(t, f)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	var typed *Error
	require.ErrorAs(t, err, &typed)
}
