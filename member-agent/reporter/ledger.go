package reporter

import (
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/clock"

	"tripod.dev/tripod/syncer"
)

// ledger holds the journals of all resources. Its lock is held for map and
// slice work only, never while a message is sent.
type ledger struct {
	keepDeletes int
	clock       clock.PassiveClock

	mu      sync.Mutex
	shelves map[schema.GroupVersionResource]*shelf
	changed chan struct{}
}

// shelf is the journal of one resource.
type shelf struct {
	resource syncer.Resource
	journal  *syncer.Journal
	// listed is false until the API server has answered once: until then the
	// shelf is not shown, because an empty snapshot would say "none".
	listed bool
	// life counts how often the resource was retired: a reader of a former life
	// starts anew, because its hub member has dropped the resource.
	life int
	// silent is when the API server stopped answering; zero while it answers.
	silent time.Time
}

func newLedger(keepDeletes int, clock clock.PassiveClock) *ledger {
	return &ledger{
		keepDeletes: keepDeletes,
		clock:       clock,
		shelves:     map[schema.GroupVersionResource]*shelf{},
		changed:     make(chan struct{}),
	}
}

// next is closed at the next change after this call.
func (l *ledger) next() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

func (l *ledger) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wakeLocked()
}

func (l *ledger) wakeLocked() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// update runs change on the resource's journal and wakes the streams if it
// changed anything.
func (l *ledger) update(resource syncer.Resource, change func(*syncer.Journal) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.shelfLocked(resource)
	if change(s.journal) {
		l.wakeLocked()
	}
}

// replace is update with the answer to a list.
func (l *ledger) replace(resource syncer.Resource, objects []syncer.Object) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.shelfLocked(resource)
	if s.journal.Replace(objects) || !s.listed {
		s.listed = true
		l.wakeLocked()
	}
}

// retire empties and hides the shelf of a resource that is served no more; the
// facts tell the hub members.
func (l *ledger) retire(resource syncer.Resource) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s, ok := l.shelves[resource.GroupVersionResource]; ok {
		s.silent, s.listed = time.Time{}, false
		s.life++
		s.journal.Replace(nil)
	}
}

func (l *ledger) shelfLocked(resource syncer.Resource) *shelf {
	s, ok := l.shelves[resource.GroupVersionResource]
	if !ok {
		s = &shelf{journal: syncer.NewJournal(l.keepDeletes)}
		l.shelves[resource.GroupVersionResource] = s
	}
	s.resource = resource
	return s
}

// heard notes an answer of the API server about the resource, or, with an
// error, that there was none.
func (l *ledger) heard(resource syncer.Resource, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.shelfLocked(resource)
	switch {
	case err == nil && !s.silent.IsZero():
		s.silent = time.Time{}
		l.wakeLocked()
	case err != nil && s.silent.IsZero():
		s.silent = l.clock.Now()
		l.wakeLocked()
	}
}

// listed returns the resources that can be shown, in a fixed order with
// namespaces and nodes near the front because "" is the first group.
func (l *ledger) listed() []syncer.Resource {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := make([]syncer.Resource, 0, len(l.shelves))
	for _, s := range l.shelves {
		if s.listed {
			found = append(found, s.resource)
		}
	}
	slices.SortFunc(found, func(a, b syncer.Resource) int {
		return strings.Compare(a.Group+"/"+a.Resource, b.Group+"/"+b.Resource)
	})
	return found
}

// bookmark is a reader's place in one resource.
type bookmark struct {
	cursor syncer.Cursor
	life   int
	// old is true when the last message about the resource carried an age.
	old bool
}

// page is one step of a reader through a resource, and the resource's age.
func (l *ledger) page(resource schema.GroupVersionResource, from bookmark, limit syncer.Limit) (batch syncer.Batch, next bookmark, age time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.shelves[resource]
	if from.life != s.life {
		from = bookmark{life: s.life}
	}
	if !s.silent.IsZero() {
		age = max(l.clock.Since(s.silent), time.Millisecond)
	}
	next = bookmark{life: s.life, old: age > 0}
	batch, next.cursor, ok = s.journal.Next(from.cursor, limit)
	return batch, next, age, ok
}
