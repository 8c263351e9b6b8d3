package trail

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestACopyHoldsWhatWasAcknowledgedUntilThePrimaryLooked(t *testing.T) {
	const s = time.Second
	at := func(epoch, timeline, position int64) Mark { return Mark{epoch, timeline, position} }
	for name, tc := range map[string]struct {
		tell func(b *Book)
		want time.Duration
		ok   bool
	}{
		"nothing is known of one that never said where it is": {func(b *Book) { b.Wrote(at(1, 1, 100), s) }, 0, false},
		"one that is behind holds an older end":               {func(b *Book) { b.Wrote(at(1, 1, 100), s); b.Wrote(at(1, 1, 200), 2*s); b.Reached("x", at(1, 1, 150)) }, s, true},
		"one that is level holds the newest":                  {func(b *Book) { b.Wrote(at(1, 1, 100), s); b.Wrote(at(1, 1, 200), 2*s); b.Reached("x", at(1, 1, 200)) }, 2 * s, true},
		"an idle primary moves it on":                         {func(b *Book) { b.Wrote(at(1, 1, 100), s); b.Reached("x", at(1, 1, 100)); b.Wrote(at(1, 1, 100), 9*s) }, 9 * s, true},
		"it may have said so first":                           {func(b *Book) { b.Reached("x", at(1, 1, 150)); b.Wrote(at(1, 1, 100), s) }, s, true},
		"a late word of the primary is left out":              {func(b *Book) { b.Wrote(at(1, 1, 200), s); b.Wrote(at(1, 1, 100), 2*s); b.Reached("x", at(1, 1, 100)) }, 0, false},
		"another timeline says nothing":                       {func(b *Book) { b.Wrote(at(1, 1, 100), s); b.Reached("x", at(1, 2, 900)) }, 0, false},
		"nor does another epoch":                              {func(b *Book) { b.Wrote(at(2, 1, 100), s); b.Reached("x", at(1, 1, 900)) }, 0, false},
		"an older primary says nothing any more":              {func(b *Book) { b.Wrote(at(2, 1, 300), s); b.Wrote(at(1, 1, 100), 2*s); b.Reached("x", at(1, 1, 100)) }, 0, false},
		"what was known before a role change stays known":     {func(b *Book) { b.Wrote(at(1, 1, 100), s); b.Reached("x", at(1, 1, 100)); b.Wrote(at(2, 2, 300), 5*s) }, s, true},
	} {
		b := NewBook()
		tc.tell(b)
		if got, ok := b.Held("x"); got != tc.want || ok != tc.ok {
			t.Errorf("%s: %v %v, want %v %v", name, got, ok, tc.want, tc.ok)
		}
	}
}

// A primary that acknowledges as it writes, and a copy that follows: whatever is told in
// whatever order, the copy holds everything of before the instant.
func TestTheInstantIsNeverTooLate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := NewBook()
		var acknowledged []time.Duration // by position
		copied, now := 0, time.Duration(0)
		for range rapid.IntRange(1, 1500).Draw(t, "steps") {
			now += time.Duration(rapid.IntRange(1, 1000).Draw(t, "passes")) * time.Millisecond
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				acknowledged = append(acknowledged, now)
			case 1:
				copied = rapid.IntRange(copied, len(acknowledged)).Draw(t, "copied")
			case 2:
				b.Wrote(Mark{1, 1, int64(len(acknowledged))}, now)
			case 3:
				b.Reached("x", Mark{1, 1, int64(copied)})
			}
			if at, known := b.Held("x"); known && copied < len(acknowledged) && acknowledged[copied] < at {
				t.Fatalf("it is said to hold everything until %v, and lacks what was acknowledged at %v", at, acknowledged[copied])
			}
		}
	})
}
