package term

import "time"

// Clock returns the time since an arbitrary origin, monotonic.
type Clock func() time.Duration

// Monotonic is the clock of this process, counted from the call.
func Monotonic() Clock {
	origin := time.Now()
	return func() time.Duration { return time.Since(origin) }
}
