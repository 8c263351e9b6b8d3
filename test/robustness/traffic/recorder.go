package traffic

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"tripod.dev/tripod/test/robustness/model"
)

// recorder collects what the clients of one run did and saw.
type recorder struct {
	start  time.Time
	values atomic.Int64

	mu      sync.Mutex
	history model.History
	// seen is, per collector, the last revision that it was told.
	seen map[string]int64
	// attempted and compacted are the highest revision asked for and confirmed.
	compacted int64
	// modified are recent revisions of keys, for transactions to expect.
	modified map[string]int64
}

func newRecorder() *recorder {
	return &recorder{start: time.Now(), seen: map[string]int64{}, modified: map[string]int64{}}
}

func (r *recorder) now() time.Duration { return time.Since(r.start) }

// value is one that nobody has written yet.
func (r *recorder) value() string { return fmt.Sprintf("v%d", r.values.Add(1)) }

func (r *recorder) note(f func(*model.History)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.history)
}

func (r *recorder) operation(o model.Operation) {
	r.note(func(h *model.History) { h.Operations = append(h.Operations, o) })
	if o.Response == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, item := range o.Response.Items {
		r.modified[item.Key] = max(r.modified[item.Key], item.Modified)
	}
	if o.Kind == model.Put || o.Kind == model.Txn && o.Response.Succeeded {
		r.modified[o.Key] = max(r.modified[o.Key], o.Response.Revision)
	}
}

func (r *recorder) expected(key string) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.modified[key]
}

// collected notes that a collector was told up to revision.
func (r *recorder) collected(collector string, revision int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen[collector] = max(r.seen[collector], revision)
}

// known is the revision up to which every collector was told, and the highest
// that was compacted away.
func (r *recorder) known() (told, compacted int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := true
	for _, revision := range r.seen {
		if first || revision < told {
			told = revision
		}
		first = false
	}
	return told, r.compacted
}
