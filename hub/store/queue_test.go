package store

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// pending is a future that Raft answers when answered is closed.
type pending struct{ answered chan struct{} }

// Error implements raft.Future.
func (p pending) Error() error {
	<-p.answered
	return nil
}

func TestAQueueIsClosedWhenAllIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q queue
		p := pending{make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		// The caller has gone; Raft still owes the answer.
		if err := q.answer(ctx, func() raft.Future { return p }); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want the caller's cancellation", err)
		}
		closed := make(chan struct{})
		go func() {
			q.close(time.Hour)
			close(closed)
		}()
		synctest.Wait()
		select {
		case <-closed:
			t.Fatal("closed before Raft has answered")
		default:
		}
		if err := q.answer(t.Context(), func() raft.Future { t.Error("put into a closed queue"); return p }); !errors.Is(err, ErrStopped) {
			t.Errorf("got %v, want ErrStopped", err)
		}
		close(p.answered)
		<-closed
	})
}
