package driver

// Branches are the options of aufs.
var Branches = branches

// Understand finds the errno behind a message of zfs.
var Understand = understand

// ParseClone reads the names that are noted of a dataset.
func ParseClone(s string) (name, parent string, err error) {
	c, err := parseClone(s)
	return c.name, c.parent, err
}
