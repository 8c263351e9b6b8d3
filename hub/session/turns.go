package session

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"time"
)

// beginTimeout is how long a handshake may wait for its first turn. It is well below
// the patience of agents, so that what is begun is finished while somebody waits for it.
const beginTimeout = 2 * time.Second

var errBusy = errors.New("too many handshakes at once: the client was sent away to come back later")

// turns bound how many TLS handshakes compute at one time. A thousand agents that come
// back at once are then served one after the other: heartbeats find a processor in
// between, and as those that were begun go first, the work done when agents lose
// patience is whole handshakes and not a thousand halves.
type turns struct {
	mu    sync.Mutex
	free  int
	begun []chan struct{} // in order
	fresh []chan struct{}
}

func newTurns(n int) *turns { return &turns{free: n} }

// take waits for a turn, which give must end, until ctx ends.
func (t *turns) take(ctx context.Context, begun bool) error {
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return nil
	}
	queue := &t.fresh
	if begun {
		queue = &t.begun
	}
	mine := make(chan struct{})
	*queue = append(*queue, mine)
	t.mu.Unlock()
	select {
	case <-mine:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(*queue, mine); i >= 0 {
		*queue = slices.Delete(*queue, i, i+1)
	} else {
		t.giveLocked() // it came at the same moment
	}
	return context.Cause(ctx)
}

func (t *turns) give() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.giveLocked()
}

func (t *turns) giveLocked() {
	for _, queue := range []*[]chan struct{}{&t.begun, &t.fresh} {
		if len(*queue) > 0 {
			close((*queue)[0])
			*queue = slices.Delete(*queue, 0, 1)
			return
		}
	}
	t.free++
}

// inTurn is a connection whose TLS handshake takes turns: it has one while it computes
// and none while it waits for its client, so a silent client holds up nobody.
type inTurn struct {
	net.Conn
	turns *turns
	// ctx is the handshake's; nil when that is over.
	ctx         context.Context //nolint:containedctx // net.Conn has no other way
	begun, held bool
}

// Read implements net.Conn. Until finish only one goroutine may call it.
func (c *inTurn) Read(p []byte) (int, error) {
	if c.ctx == nil {
		return c.Conn.Read(p)
	}
	if c.held {
		c.held = false
		c.turns.give()
	}
	n, err := c.Conn.Read(p)
	if err != nil {
		return n, err
	}
	if err := c.wait(); err != nil {
		return 0, err
	}
	c.begun, c.held = true, true
	return n, nil
}

func (c *inTurn) wait() error {
	ctx := c.ctx
	if !c.begun {
		patient, cancel := context.WithTimeoutCause(ctx, beginTimeout, errBusy)
		defer cancel()
		ctx = patient
	}
	return c.turns.take(ctx, c.begun)
}

// finish makes it a plain connection.
func (c *inTurn) finish() {
	if c.held {
		c.turns.give()
	}
	c.held, c.ctx = false, nil
}
