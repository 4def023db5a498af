package driver

// Branches are the options of aufs.
var Branches = branches
