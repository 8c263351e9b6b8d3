package fault

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Network carries every connection between two members through a proxy, one for
// each that dials, and can hold up each direction by itself. Nothing is lost on a
// connection that is held up: as with TCP, it arrives late, if the connection
// lives until then.
type Network struct {
	mu        sync.Mutex
	listeners []net.Listener
	conns     map[*link]struct{}
	directions
	wg     sync.WaitGroup
	closed bool
}

// directions are what is done to the bytes from a member to another.
type directions struct {
	cut   map[direction]bool
	delay map[direction]time.Duration
	// changed is closed at every change.
	changed chan struct{}
}

type direction struct{ from, to string }

// link is one connection that from dialled to to.
type link struct {
	direction
	near, far net.Conn
}

// NewNetwork has no connections yet.
func NewNetwork() *Network {
	return &Network{conns: map[*link]struct{}{}, directions: directions{
		cut: map[direction]bool{}, delay: map[direction]time.Duration{}, changed: make(chan struct{}),
	}}
}

// Route opens a proxy through which from reaches address of to, and returns the
// proxy's address.
func (n *Network) Route(from, to, address string) (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("open the proxy from %s to %s: %w", from, to, err)
	}
	n.mu.Lock()
	n.listeners = append(n.listeners, listener)
	n.mu.Unlock()
	n.wg.Go(func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return // closed
			}
			n.wg.Go(func() { n.carry(direction{from, to}, near, address) })
		}
	})
	return listener.Addr().String(), nil
}

func (n *Network) carry(d direction, near net.Conn, address string) {
	far, err := net.Dial("tcp", address)
	if err != nil {
		_ = near.Close()
		return
	}
	l := &link{direction: d, near: near, far: far}
	n.mu.Lock()
	closed := n.closed
	n.conns[l] = struct{}{}
	n.mu.Unlock()
	if closed {
		l.close()
	}
	n.wg.Go(func() { n.pump(l, d, far, near) })
	n.pump(l, direction{d.to, d.from}, near, far)
	n.mu.Lock()
	delete(n.conns, l)
	n.mu.Unlock()
}

func (l *link) close() {
	_ = l.near.Close()
	_ = l.far.Close()
}

// pump carries what goes in direction d until either end closes.
func (n *Network) pump(l *link, d direction, to, from net.Conn) {
	defer l.close()
	buffer := make([]byte, 64<<10)
	for {
		count, err := from.Read(buffer)
		if count > 0 {
			if !n.pass(d) {
				return
			}
			if _, err := to.Write(buffer[:count]); err != nil {
				return
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				return
			}
			n.pass(d) // the end arrives no earlier than bytes would
			return
		}
	}
}

// pass returns when bytes may go in direction d; false: the network is closed.
func (n *Network) pass(d direction) bool {
	n.mu.Lock()
	delay := n.delay[d]
	n.mu.Unlock()
	if delay > 0 {
		<-time.After(delay)
	}
	for {
		n.mu.Lock()
		cut, closed, changed := n.cut[d], n.closed, n.changed
		n.mu.Unlock()
		if closed || !cut {
			return !closed
		}
		<-changed
	}
}

func (n *Network) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	close(n.changed)
	n.changed = make(chan struct{})
}

// Cut holds up what from sends to to.
func (n *Network) Cut(from, to string) {
	n.change(func() { n.cut[direction{from, to}] = true })
}

// Slow delays what from sends to to.
func (n *Network) Slow(from, to string, delay time.Duration) {
	n.change(func() { n.delay[direction{from, to}] = delay })
}

// Reset closes the connections between two members.
func (n *Network) Reset(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for l := range n.conns {
		if l.from == a && l.to == b || l.from == b && l.to == a {
			l.close()
		}
	}
}

// Heal ends all cuts and delays. What was held up arrives.
func (n *Network) Heal() {
	n.change(func() {
		clear(n.cut)
		clear(n.delay)
	})
}

// Close ends all connections and returns when nothing is carried any more.
func (n *Network) Close() {
	n.change(func() {
		n.closed = true
		for _, l := range n.listeners {
			_ = l.Close()
		}
		for l := range n.conns {
			l.close()
		}
	})
	n.wg.Wait()
}
