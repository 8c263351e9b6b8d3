package session

import (
	"context"
	"sync"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// views runs at most one view stream on a session: each start replaces the one
// before, each stop ends it. Used by one goroutine.
type views struct {
	stream func(context.Context, func(*agentv1.AgentMessage) error) error
	out    *outbox
	cancel context.CancelFunc
	ended  sync.WaitGroup
}

func newViews(stream func(context.Context, func(*agentv1.AgentMessage) error) error, out *outbox) *views {
	return &views{stream: stream, out: out}
}

func (v *views) subscribe(ctx context.Context, start bool) {
	v.stop()
	if !start {
		return
	}
	ctx, v.cancel = context.WithCancel(ctx)
	v.ended.Go(func() {
		// It ends with ctx, or with the session whose send fails.
		_ = v.stream(ctx, func(m *agentv1.AgentMessage) error { return v.out.putView(ctx, m) })
	})
}

// stop returns when the stream has ended and nothing of it waits to be sent.
func (v *views) stop() {
	if v.cancel == nil {
		return
	}
	v.cancel()
	v.ended.Wait()
	v.cancel = nil
	v.out.clearView()
}
