package pieces

import (
	"errors"
	"slices"
	"testing"
)

func TestPieces(t *testing.T) {
	var sent []string
	w := &Writer{Size: 4, Send: func(piece []byte) error { sent = append(sent, string(piece)); return nil }}
	for _, text := range []string{"ab", "", "cdefghij", "k"} {
		if n, err := w.Write([]byte(text)); err != nil || n != len(text) {
			t.Fatalf("write %q: %d %v", text, n, err)
		}
	}
	if err := errors.Join(w.Flush(), w.Flush()); err != nil || !slices.Equal(sent, []string{"abcd", "efgh", "ijk"}) {
		t.Errorf("sent %q, %v", sent, err)
	}
	broken := errors.New("broken")
	w = &Writer{Size: 1, Send: func([]byte) error { return broken }}
	if _, err := w.Write([]byte("ab")); !errors.Is(err, broken) {
		t.Errorf("a stream that is broken: %v", err)
	}
}
