package lsm

import "flag"

var update = flag.Bool("update", false, "write the golden files anew")

// Update is the flag for tests outside.
var Update = update
