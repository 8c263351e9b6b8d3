package scenario

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// poll is how often a condition is looked at.
const poll = 100 * time.Millisecond

// await looks at a condition until it holds: look returns "" when it does, and
// otherwise what is still missing. An error is what is missing, too: the fleet
// may be recovering. It fails with the last answer when the time is over.
func (f *Fleet) await(ctx context.Context, limit time.Duration, what string, look func(context.Context) (missing string, err error)) error {
	return f.awaitEvery(ctx, poll, limit, what, look)
}

// awaitEvery is await for a look that costs the fleet something.
func (f *Fleet) awaitEvery(ctx context.Context, every, limit time.Duration, what string, look func(context.Context) (missing string, err error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	var last, failed string
	for {
		missing, err := look(ctx)
		switch {
		case err == nil && missing == "":
			return nil
		case err == nil:
			last, failed = missing, ""
		default:
			// The last look may have failed for want of time alone.
			if failed == "" || ctx.Err() == nil {
				failed = err.Error()
			}
			f.forget()
		}
		select {
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), context.Canceled) {
				return fmt.Errorf("wait until %s: %w", what, context.Canceled)
			}
			return fmt.Errorf("wait until %s: not so after %s: %s", what, limit, strings.TrimSpace(last+" "+failed))
		case <-ticker.C:
		}
	}
}

// Throughout checks that a condition holds at every look for as long as d, and
// fails at the first look at which it does not.
func (f *Fleet) Throughout(ctx context.Context, d time.Duration, what string, look func(context.Context) (wrong string, err error)) error {
	deadline := time.NewTimer(d)
	defer deadline.Stop()
	ticker := time.NewTicker(5 * poll)
	defer ticker.Stop()
	looks := 0
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			if looks == 0 {
				return fmt.Errorf("check that %s: nothing could be looked at for %s", what, d)
			}
			return nil
		case <-ticker.C:
		}
		wrong, err := look(ctx)
		if err != nil {
			f.forget()
			continue
		}
		looks++
		if wrong != "" {
			return fmt.Errorf("check that %s: %s", what, wrong)
		}
	}
}

// outlive lets an interval of real time pass that the scenario is about, such
// as the end of every lease.
func (f *Fleet) outlive(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
