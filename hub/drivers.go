package hub

import (
	"fmt"
	"slices"
)

// builtInDriver needs nothing beside the agents.
const builtInDriver = "postgresql"

// datasetDrivers are the drivers that a dataset may name: the built-in one, and those
// that the configuration says run beside the agents.
func (c Config) datasetDrivers() []string {
	return append([]string{builtInDriver}, c.Drivers...)
}

// validateDrivers names the first driver that cannot be one.
func (c Config) validateDrivers() error {
	for i, name := range c.Drivers {
		switch {
		case name == builtInDriver:
			return fmt.Errorf("drivers[%d] is %q, which is built in: name only those that run beside the agents", i, name)
		case !memberName.MatchString(name):
			return fmt.Errorf("drivers[%d] is %q: use lower-case letters, digits and '-', as in the agents' --drivers", i, name)
		case slices.Contains(c.Drivers[:i], name):
			return fmt.Errorf("drivers[%d] (%s) stands twice", i, name)
		}
	}
	return nil
}
