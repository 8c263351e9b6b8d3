package effector

import "tripod.dev/tripod/failover/driver"

// BuiltIn is a built-in driver, for a test that puts it behind a socket.
func (e *Effector) BuiltIn(name string) driver.Driver { return e.drivers[name] }
