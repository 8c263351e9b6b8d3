// Package frames writes the frames of a tunnel (yamux) to its connection.
package frames

import (
	"encoding/binary"
	"net"
)

// yamux's header: version, type, flags (2), stream (4), length (4).
const (
	headerBytes  = 12
	typeAt       = 1
	lengthAt     = 8
	typeData     = 0
	keptCapacity = 36 << 10 // of the buffer between two frames; an answer's part and what HTTP adds
	recordBytes  = 16 << 10 // TLS's largest
)

// Joined makes one write of a frame's header and its data, which yamux writes one after
// the other: over TLS that is one record and one system call instead of two. Of a large
// frame over TLS over a Wire it makes one system call and as many records as it takes.
// The bytes and their order stay the same, and nothing waits for a later frame. As yamux
// does, only one goroutine may write.
func Joined(conn net.Conn) net.Conn {
	j := &joined{Conn: conn}
	if over, ok := conn.(interface{ NetConn() net.Conn }); ok {
		j.wire, _ = over.NetConn().(*Wire)
	}
	return j
}

type joined struct {
	net.Conn
	wire   *Wire // under Conn; may be nil
	buffer []byte
	// held is true while buffer is a header whose data come with the next write.
	held bool
}

// Write implements net.Conn.
func (j *joined) Write(p []byte) (int, error) {
	if !j.held {
		if !announces(p) {
			return j.Conn.Write(p)
		}
		j.buffer, j.held = append(j.buffer[:0], p...), true
		return len(p), nil
	}
	j.held = false
	if j.wire != nil && len(p) > recordBytes-headerBytes {
		return j.writeLarge(p)
	}
	j.buffer = append(j.buffer, p...)
	n, err := j.Conn.Write(j.buffer)
	if cap(j.buffer) > keptCapacity {
		j.buffer = nil
	}
	return max(n-headerBytes, 0), err
}

// writeLarge copies no data to join them with the header.
func (j *joined) writeLarge(p []byte) (n int, err error) {
	j.wire.gather()
	if _, err = j.Conn.Write(j.buffer); err == nil {
		n, err = j.Conn.Write(p)
	}
	if failed := j.wire.flush(); err == nil {
		err = failed
	}
	return n, err
}

// Close implements net.Conn. A write that the other end does not take is not waited for:
// TLS closes what is below it only if the write is its own.
func (j *joined) Close() error {
	if j.wire != nil && j.wire.writing.Load() {
		_ = j.wire.Conn.Close()
	}
	return j.Conn.Close()
}

// announces says whether p is the header of a frame with data.
func announces(p []byte) bool {
	return len(p) == headerBytes && p[typeAt] == typeData && binary.BigEndian.Uint32(p[lengthAt:]) > 0
}
