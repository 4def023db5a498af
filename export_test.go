package caisson

import "github.com/caisson-dev/caisson/internal/launch"

// LaunchOptions are the launcher's: another way to clone, a step that is made to fail.
type LaunchOptions = launch.Options

// SetOptions sets them for one command.
func (c *Cmd) SetOptions(o LaunchOptions) { c.options = o }
