//go:build linux

package initprog

import _ "embed"

// program is what build.sh made: a string, so that nothing changes it.
//
//go:embed init_amd64
var program string
