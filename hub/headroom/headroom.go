// Package headroom has the garbage collector run less often while little is in use.
//
// Go begins a collection when the heap has grown by as much as was in use after the
// last one. A hub member that holds little has some 80 MiB in use, most of it schemas
// of the API, and under load marks them again ten times a second, for a sixth of its
// processor time.
package headroom

import (
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// Least is how much a hub member's heap may grow between two collections, in bytes.
// It is also what that costs in memory at most: from where as much is in use, Go's own
// rule leaves more.
const Least = 256 << 20

// most bounds the percentage, so that a heap which is small for a moment, as at the
// start, and grows at once is collected in time.
const most = 400

// Follow has the heap grow by at least that many bytes between two collections, and by
// what GOGC says if that is more, until stop is called, which restores GOGC. A limit
// (GOMEMLIMIT) holds as it did. Only one may be followed at a time in a process.
func Follow(least uint64) (stop func()) {
	f := &follower{least: least, usual: debug.SetGCPercent(100)}
	if f.current = 100; f.usual < 0 { // GOGC=off: who set it has a limit
		f.stop()
		return func() {}
	}
	f.arm()
	f.adjust()
	return f.stop
}

// follower adjusts the percentage after each collection.
type follower struct {
	least uint64
	usual int

	mu      sync.Mutex
	current int
	ended   bool
}

// sentinel is what a collection finds unused. It has a pointer, or it could share its
// place with something that lives.
type sentinel struct{ of *follower }

// arm has the next collection call adjust when it has marked.
func (f *follower) arm() {
	runtime.SetFinalizer(&sentinel{f}, func(s *sentinel) {
		if s.of.adjust() {
			s.of.arm()
		}
	})
}

// adjust is false when nothing is followed any more.
func (f *follower) adjust() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return false
	}
	// Each change stops the world for a moment: not for a little.
	if wanted := percentage(f.least, f.usual, inUse()); 10*abs(wanted-f.current) > f.current {
		f.current = wanted
		debug.SetGCPercent(wanted)
	}
	return true
}

func (f *follower) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	debug.SetGCPercent(f.usual)
}

// percentage by which a heap with that much in use grows by least, or usual if that is more.
func percentage(least uint64, usual int, inUse uint64) int {
	return max(usual, int(min(most, 100*least/max(inUse, 1))))
}

// inUse is what the last collection has left, with what else it looks through, in
// bytes: the percentage is of both.
func inUse() uint64 {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	metrics.Read(samples)
	var sum uint64
	for _, s := range samples {
		if s.Value.Kind() == metrics.KindUint64 {
			sum += s.Value.Uint64()
		}
	}
	return min(sum, math.MaxInt64)
}

func abs(n int) int { return max(n, -n) }
