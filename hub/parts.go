package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
)

// part is one piece of a member. run blocks until ctx ends and returns when all
// of its goroutines have.
type part struct {
	name string
	run  func(ctx context.Context) error
}

// runParts starts the parts in order and blocks until ctx ends or one of them
// fails. It stops them in reverse order, each before the one it stands on, and
// returns what failed.
func runParts(ctx context.Context, parts []part, logger *slog.Logger) error {
	type running struct {
		part
		stop context.CancelFunc
		done chan error
	}
	failed := make(chan error, len(parts))
	var started []running
	for _, p := range parts {
		// Not derived from ctx: a part ends when its turn comes, not when ctx does.
		own, stop := context.WithCancel(context.WithoutCancel(ctx))
		r := running{part: p, stop: stop, done: make(chan error, 1)}
		go func() {
			err := r.run(own)
			if err == nil && own.Err() == nil {
				err = errors.New("it ended by itself")
			}
			if err != nil && own.Err() == nil {
				failed <- fmt.Errorf("%s: %w", r.name, err)
			}
			r.done <- err
		}()
		started = append(started, r)
	}
	var errs []error
	select {
	case <-ctx.Done():
	case err := <-failed:
		errs = append(errs, err)
	}
	for i := len(started) - 1; i >= 0; i-- {
		r := started[i]
		r.stop()
		if err := <-r.done; err != nil && !errors.Is(err, context.Canceled) && len(errs) == 0 {
			errs = append(errs, fmt.Errorf("stop %s: %w", r.name, err))
		}
		logger.Debug("part stopped", "part", r.name)
	}
	return errors.Join(errs...)
}
