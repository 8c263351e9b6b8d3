package effector

import "tripod.dev/tripod/failover/driver"

// BuiltIn is a driver of the agent's, for a test that puts a built-in one behind a socket.
func (e *Effector) BuiltIn(name string) driver.Driver { return e.drivers[name] }
