//go:build linux

package initprog

import _ "embed"

// program is what build.sh made: a string, so that nothing changes it.
//
//go:embed init_arm64
var program string
