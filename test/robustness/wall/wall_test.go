package wall

import (
	"strings"
	"testing"
)

// TestTheClockFits keeps the overlay true to the version of Go in use.
func TestTheClockFits(t *testing.T) {
	sources, err := movable(t.Context(), "../../..")
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, text := range sources {
		found = found || strings.Contains(string(text), shifted)
	}
	if !found || len(sources) != 2 {
		t.Errorf("%d sources, none with the moved clock", len(sources))
	}
}
