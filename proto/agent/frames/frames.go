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
)

// Joined makes one write of a frame's header and its data, which yamux writes one after
// the other: over TLS that is one record and one system call instead of two. The bytes
// and their order stay the same, and nothing waits for a later frame. As yamux does,
// only one goroutine may write.
func Joined(conn net.Conn) net.Conn { return &joined{Conn: conn} }

type joined struct {
	net.Conn
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
	j.buffer, j.held = append(j.buffer, p...), false
	n, err := j.Conn.Write(j.buffer)
	if cap(j.buffer) > keptCapacity {
		j.buffer = nil
	}
	return max(n-headerBytes, 0), err
}

// announces says whether p is the header of a frame with data.
func announces(p []byte) bool {
	return len(p) == headerBytes && p[typeAt] == typeData && binary.BigEndian.Uint32(p[lengthAt:]) > 0
}
