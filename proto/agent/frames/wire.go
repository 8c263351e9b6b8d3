package frames

import (
	"net"
	"sync"
	"sync/atomic"
)

// aheadBytes is how much is read, or gathered to be written, at once. Both are taken
// only while they are needed: of a thousand tunnels nearly all are idle.
const aheadBytes = 128 << 10

var spare = sync.Pool{New: func() any { return new([aheadBytes]byte) }}

// Wire is what TLS reads from and writes to. TLS makes a system call for each of its
// records, of 16 KiB at most, which is half of what a tunnel's bandwidth costs: a Wire
// reads ahead when much comes, and Joined has it write all records of a frame at once.
type Wire struct {
	net.Conn

	// Of the reader, of whom there is one.
	much     bool // the last read has left more, as it seems
	ahead    *[aheadBytes]byte
	from, to int

	writing  atomic.Bool // what was gathered
	mu       sync.Mutex  // guards the rest, and is held while it is written
	gathers  bool
	gathered *[aheadBytes]byte
	n        int
}

// Under returns a Wire on conn, for tls.Client or tls.Server. As with TLS, one goroutine
// may read while others write.
func Under(conn net.Conn) *Wire { return &Wire{Conn: conn} }

// Read implements net.Conn.
func (w *Wire) Read(p []byte) (int, error) {
	if w.ahead == nil && !w.much {
		n, err := w.Conn.Read(p)
		w.much = n == len(p) && n >= aheadBytes/16
		return n, err
	}
	if w.ahead == nil {
		w.ahead = spare.Get().(*[aheadBytes]byte)
		n, err := w.Conn.Read(w.ahead[:])
		if n == 0 {
			w.release()
			return 0, err
		}
		w.to, w.much = n, n == aheadBytes // an error that came with data comes again
	}
	n := copy(p, w.ahead[w.from:w.to])
	if w.from += n; w.from == w.to {
		w.release()
	}
	return n, nil
}

func (w *Wire) release() {
	spare.Put(w.ahead)
	w.ahead, w.from, w.to = nil, 0, 0
}

// gather has what is written wait for flush.
func (w *Wire) gather() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gathers = true
}

// flush writes what waits, and what comes later at once.
func (w *Wire) flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gathers = false
	return w.flushLocked()
}

func (w *Wire) flushLocked() error {
	if w.gathered == nil {
		return nil
	}
	w.writing.Store(true)
	_, err := w.Conn.Write(w.gathered[:w.n])
	w.writing.Store(false)
	spare.Put(w.gathered)
	w.gathered, w.n = nil, 0
	return err
}

// Write implements net.Conn. What waits for flush is not durable in any sense: its error
// comes with flush, or with a later Write.
func (w *Wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.gathered != nil && w.n+len(p) > aheadBytes {
		if err := w.flushLocked(); err != nil {
			return 0, err
		}
	}
	if !w.gathers || len(p) > aheadBytes {
		return w.Conn.Write(p)
	}
	if w.gathered == nil {
		w.gathered = spare.Get().(*[aheadBytes]byte)
	}
	w.n += copy(w.gathered[w.n:], p)
	return len(p), nil
}
