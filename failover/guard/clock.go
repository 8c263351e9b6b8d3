package guard

import (
	"time"

	"golang.org/x/sys/unix"
)

// Clock reads the guard's clock.
type Clock func() Instant

// BootClock counts from the machine's boot and goes on while it is suspended:
// a role must not outlive a suspension that its hub has counted.
func BootClock() Instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("CLOCK_BOOTTIME is not available: " + err.Error())
	}
	return Instant(time.Duration(ts.Nano()))
}
