// Package pieces cuts what is written into messages of a stream.
package pieces

// Writer sends what is written to it in pieces of Size bytes. It is used by one
// goroutine; Flush sends the last one.
type Writer struct {
	Size int
	// Send takes a piece, and may keep it: every piece has a buffer of its own.
	Send   func(piece []byte) error
	buffer []byte
}

// Write implements io.Writer.
func (w *Writer) Write(data []byte) (int, error) {
	written := len(data)
	for len(data) > 0 {
		if w.buffer == nil {
			w.buffer = make([]byte, 0, w.Size)
		}
		n := min(len(data), cap(w.buffer)-len(w.buffer))
		w.buffer, data = append(w.buffer, data[:n]...), data[n:]
		if len(w.buffer) == cap(w.buffer) {
			if err := w.Flush(); err != nil {
				return 0, err
			}
		}
	}
	return written, nil
}

// Flush sends what was not sent yet.
func (w *Writer) Flush() error {
	if len(w.buffer) == 0 {
		return nil
	}
	piece := w.buffer
	w.buffer = nil
	return w.Send(piece)
}
