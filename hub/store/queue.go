package store

import (
	"context"
	"time"

	"github.com/hashicorp/raft"
)

// queue is Raft's, of proposals, barriers and checks of the leadership, for a member that may be shut down
// meanwhile: what is in it when Raft ends is never answered, so it is closed first.
type queue struct{ open gate }

// answer returns Raft's answer to what put puts into its queue; ErrStopped if the
// queue is closed and nothing was put there, or the error of ctx.
func (q *queue) answer(ctx context.Context, put func() raft.Future) error {
	if err := q.open.enter(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		defer q.open.leave()
		done <- put().Error()
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close lets nothing in any more and waits until all is answered, but not for long:
// a Raft that stands still answers nothing.
func (q *queue) close(limit time.Duration) {
	empty := make(chan struct{})
	go func() {
		q.open.close()
		close(empty)
	}()
	select {
	case <-empty:
	case <-time.After(limit):
	}
}
