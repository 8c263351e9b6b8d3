package storetest

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
)

// Network carries the connections among the members of a cluster and can cut
// them. A connection belongs to the direction in which it was dialled.
type Network struct {
	mu     sync.Mutex
	owner  map[string]string
	cut    map[[2]string]bool
	silent map[[2]string]bool
	conns  map[*netConn]struct{}
}

type netConn struct {
	net.Conn
	network  *Network
	from, to string
	// lost is set once bytes were dropped: the stream is of no use any more.
	lost atomic.Bool
}

func newNetwork() *Network {
	return &Network{owner: map[string]string{}, cut: map[[2]string]bool{}, silent: map[[2]string]bool{}, conns: map[*netConn]struct{}{}}
}

// Cut drops the connections between the members of a and those of b, both ways,
// and refuses new ones.
func (n *Network) Cut(a, b []string) {
	n.mu.Lock()
	for _, x := range a {
		for _, y := range b {
			n.cut[[2]string{x, y}], n.cut[[2]string{y, x}] = true, true
		}
	}
	var drop []*netConn
	for c := range n.conns {
		if n.cut[[2]string{c.from, c.to}] {
			drop = append(drop, c)
		}
	}
	n.mu.Unlock()
	for _, c := range drop {
		_ = c.Close()
	}
}

// Silence loses everything sent between the members of a and those of b, and
// tells nobody, as when a machine loses its power.
func (n *Network) Silence(a, b []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, x := range a {
		for _, y := range b {
			n.silent[[2]string{x, y}], n.silent[[2]string{y, x}] = true, true
		}
	}
}

// Heal ends all cuts and silences. Connections that lost something are closed.
func (n *Network) Heal() {
	n.mu.Lock()
	clear(n.cut)
	clear(n.silent)
	var drop []*netConn
	for c := range n.conns {
		if c.lost.Load() {
			drop = append(drop, c)
		}
	}
	n.mu.Unlock()
	for _, c := range drop {
		_ = c.Close()
	}
}

func (c *netConn) silenced() bool {
	c.network.mu.Lock()
	defer c.network.mu.Unlock()
	if c.network.silent[[2]string{c.from, c.to}] {
		c.lost.Store(true)
	}
	return c.lost.Load()
}

// Write implements net.Conn.
func (c *netConn) Write(p []byte) (int, error) {
	if c.silenced() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// Read implements net.Conn. What arrives in silence is dropped.
func (c *netConn) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if err != nil || !c.silenced() {
			return n, err
		}
	}
}

func (n *Network) own(member string, addresses ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range addresses {
		n.owner[a] = member
	}
}

func (n *Network) dialer(from string) func(context.Context, string) (net.Conn, error) {
	var d net.Dialer
	return func(ctx context.Context, address string) (net.Conn, error) {
		if err := n.allowed(from, address); err != nil {
			return nil, err
		}
		conn, err := d.DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		n.mu.Lock()
		c := &netConn{Conn: conn, network: n, from: from, to: n.owner[address]}
		n.conns[c] = struct{}{}
		n.mu.Unlock()
		if err := n.allowed(from, address); err != nil {
			_ = c.Close()
			return nil, err
		}
		return c, nil
	}
}

func (n *Network) allowed(from, address string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if to := n.owner[address]; n.cut[[2]string{from, to}] {
		return fmt.Errorf("network between %s and %s is cut", from, to)
	}
	return nil
}

// Close implements net.Conn.
func (c *netConn) Close() error {
	c.network.mu.Lock()
	delete(c.network.conns, c)
	c.network.mu.Unlock()
	return c.Conn.Close()
}
