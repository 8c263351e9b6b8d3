package gateway

import (
	"context"
	"net"
	"sync"
)

// queue lets only some of the agents in one process be in a handshake at one time. Agents
// have processors of their own; a process that plays a thousand would compute a
// thousand handshakes side by side, and with too little processor none in time.
type queue chan struct{}

const handshaking = 16

func newQueue() queue { return make(queue, handshaking) }

// dial connects when it is this agent's turn.
func (q queue) dial(ctx context.Context, address string) (net.Conn, error) {
	select {
	case q <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		<-q
		return nil, err
	}
	return &queued{Conn: conn, leave: sync.OnceFunc(func() { <-q })}, nil
}

// queued leaves the queue with what ends the client's part of a TLS handshake, its
// third write (after the hello and a change of ciphers for old middleboxes), or with its end.
type queued struct {
	net.Conn
	leave  func()
	writes int
}

// Write implements net.Conn.
func (q *queued) Write(p []byte) (int, error) {
	n, err := q.Conn.Write(p)
	if q.writes++; q.writes == 3 {
		q.leave()
	}
	return n, err
}

// Close implements net.Conn.
func (q *queued) Close() error {
	q.leave()
	return q.Conn.Close()
}
