// Package freeport finds ports for the servers of tests and benchmarks that must
// know their address before they listen, or listen on it again after a restart.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
)

// The ports lie under the range that Linux gives to outgoing connections
// (net.ipv4.ip_local_port_range). One from that range, which listening on port 0
// would give, can be taken by any client between a server's end and its restart;
// PostgreSQL then goes on without the address and only writes a line in its log.
const first, last = 15_000, 32_000

var given = struct {
	sync.Mutex
	ports map[int]struct{}
}{ports: map[int]struct{}{}}

// Find gives n free ports of loopback, none of which this process was given before.
func Find(n int) (ports []int, err error) {
	given.Lock()
	defer given.Unlock()
	for range 1000 + n {
		if len(ports) == n {
			return ports, nil
		}
		port := first + rand.IntN(last-first)
		if _, again := given.ports[port]; again {
			continue
		}
		l, err := net.Listen("tcp", Address(port))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			return nil, fmt.Errorf("release port %d: %w", port, err)
		}
		given.ports[port] = struct{}{}
		ports = append(ports, port)
	}
	return nil, errors.New("find a free port: all between " + strconv.Itoa(first) + " and " + strconv.Itoa(last) + " seem taken")
}

// Addresses are n free addresses of loopback for a test, which ends without them.
func Addresses(tb testing.TB, n int) []string {
	tb.Helper()
	ports, err := Find(n)
	if err != nil {
		tb.Fatal(err)
	}
	addresses := make([]string, n)
	for i, port := range ports {
		addresses[i] = Address(port)
	}
	return addresses
}

// Address is a port of loopback as HOST:PORT.
func Address(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }
