package controller

import (
	"runtime"
	"sync"
	"time"
)

// width is how many writes of a turn are on their way at once. Writes that wait for the
// log are synced together, so on a slow disk many take hardly longer than few. Where
// processors are what they wait for, more of them only wait for each other: until they
// exceed their time, are written again, and the goroutines of Raft queue behind them for
// so long that the leader is none any more. So it grows while writes are quick, by a few
// with each full batch, and halves when one was late.
//
// It belongs to the controller's loop; only took may be called concurrently.
type width struct {
	at int

	mu      sync.Mutex
	slowest time.Duration // of the present batch
}

const (
	narrowest = 16
	widest    = 128
	widenBy   = 8
	// quickWrite and lateWrite are below and above what a majority of members on disks and
	// processors of their own takes for a write among many.
	quickWrite = 250 * time.Millisecond
	lateWrite  = time.Second
)

func newWidth() *width { return &width{at: min(32*runtime.GOMAXPROCS(0), widest)} }

// took notes how long one write took.
func (w *width) took(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.slowest = max(w.slowest, d)
}

// adapt ends a batch of n writes.
func (w *width) adapt(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.slowest > lateWrite:
		w.at = max(w.at/2, narrowest)
	case n >= w.at && w.slowest < quickWrite:
		w.at = min(w.at+widenBy, widest)
	}
	w.slowest = 0
}
