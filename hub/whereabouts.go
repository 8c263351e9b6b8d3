package hub

import (
	"context"
	"fmt"
	"sync"
	"time"

	"tripod.dev/tripod/hub/gateway"
	"tripod.dev/tripod/hub/term"
)

// placeAge is how old this member's knowledge of an application's place may be
// for a read. It also bounds how often a majority is asked about reads.
const placeAge = 500 * time.Millisecond

// placeWait bounds how long a majority may take to answer.
const placeWait = 2 * time.Second

// whereabouts tells the gateway where applications are, from the state that this
// member has applied. It asks a majority first whether that is all there is, so
// that a member that is cut off from the hub refuses instead of leading to a side
// that is fenced. It is safe for concurrent use.
type whereabouts struct {
	committed *term.Committed
	linearize func(context.Context) error
	clock     term.Clock

	mu sync.Mutex
	// asked is when the last question was sent that a majority has answered.
	asked time.Duration
	fresh bool
}

// Standing implements gateway.Applications.
func (w *whereabouts) Standing(ctx context.Context, namespace, name string, strict bool) (gateway.Standing, error) {
	if err := w.confirm(ctx, strict); err != nil {
		return gateway.Standing{}, fmt.Errorf("this hub member cannot ask a majority of the hub where it is active: %w; ask another member, or go to /clusters/NAME", err)
	}
	state, err := w.committed.Application(ctx, namespace, name)
	if err != nil {
		return gateway.Standing{}, fmt.Errorf("read where it is active: %w", err)
	}
	if state == nil {
		return gateway.Standing{}, gateway.ErrNoSuchApplication
	}
	return gateway.Standing{Application: state.Application, Datasets: state.Datasets, Services: state.Services, Serials: state.Serials}, nil
}

func (w *whereabouts) confirm(ctx context.Context, strict bool) error {
	now := w.clock()
	w.mu.Lock()
	enough := !strict && w.fresh && now-w.asked < placeAge
	w.mu.Unlock()
	if enough {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, placeWait)
	defer cancel()
	if err := w.linearize(ctx); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked, w.fresh = max(w.asked, now), true
	return nil
}
