package syncer

import (
	"bytes"
	"sort"
)

// Cursor is one reader's place in a Journal. The zero Cursor asks for a snapshot.
type Cursor struct {
	at    Checkpoint
	begin Checkpoint
	phase phase
}

type phase int

const (
	phaseNew phase = iota
	phaseSnapshot
	phaseFollowing
)

// Checkpoint is how far the reader came.
func (c Cursor) Checkpoint() Checkpoint { return c.at }

// Following is true once the reader was given a whole snapshot.
func (c Cursor) Following() bool { return c.phase == phaseFollowing }

// Journal is a Source of one resource: the objects in the order of their last
// change, each once, and the latest deletions. Its size is bounded by the
// objects and by the deletions kept, not by the readers: a reader that falls
// behind is given the newest state of each object, and a reader that is behind
// the oldest deletion kept is given a new snapshot.
//
// A Journal is not safe for concurrent use; whoever owns it locks.
type Journal struct {
	keepDeletes int

	entries map[Key]*entry
	log     []record
	head    Checkpoint
	// floor is the newest deletion that was forgotten.
	floor   Checkpoint
	deletes int
}

type entry struct {
	object  Object
	at      Checkpoint
	deleted bool
}

// record is stale when its entry has changed again since.
type record struct {
	at    Checkpoint
	entry *entry
}

// NewJournal keeps at least the latest keepDeletes deletions.
func NewJournal(keepDeletes int) *Journal {
	return &Journal{keepDeletes: keepDeletes, entries: map[Key]*entry{}}
}

// Len counts the objects.
func (j *Journal) Len() int { return len(j.entries) - j.deletes }

// Head is the checkpoint of the newest change.
func (j *Journal) Head() Checkpoint { return j.head }

// Upsert takes an object and reports whether that changed anything.
func (j *Journal) Upsert(object Object) bool {
	old := j.entries[object.Key]
	if old != nil && !old.deleted && same(old.object, object) {
		return false
	}
	if old != nil && old.deleted {
		j.deletes--
	}
	j.append(&entry{object: object})
	return true
}

// Delete removes an object and reports whether there was one.
func (j *Journal) Delete(key Key) bool {
	old := j.entries[key]
	if old == nil || old.deleted {
		return false
	}
	j.deletes++
	j.append(&entry{object: Object{Key: key}, deleted: true})
	return true
}

// Replace makes the journal hold exactly objects and reports whether that
// changed anything. Objects of the same version stay where they are, so a
// source that lists anew costs its readers only the difference.
func (j *Journal) Replace(objects []Object) bool {
	keep := make(map[Key]struct{}, len(objects))
	changed := false
	for _, object := range objects {
		keep[object.Key] = struct{}{}
		changed = j.Upsert(object) || changed
	}
	var gone []Key
	for key, held := range j.entries {
		if _, ok := keep[key]; !ok && !held.deleted {
			gone = append(gone, key)
		}
	}
	for _, key := range gone {
		j.Delete(key)
	}
	return changed || len(gone) > 0
}

func same(a, b Object) bool {
	if a.Version != "" || b.Version != "" {
		return a.Version == b.Version
	}
	return bytes.Equal(a.JSON, b.JSON)
}

func (j *Journal) append(e *entry) {
	j.head++
	e.at = j.head
	j.entries[e.object.Key] = e
	j.log = append(j.log, record{at: e.at, entry: e})
	if len(j.log) > 2*len(j.entries)+64 || j.deletes > 2*j.keepDeletes+64 {
		j.compact()
	}
}

func (j *Journal) current(r record) bool {
	return j.entries[r.entry.object.Key] == r.entry
}

// compact drops stale records and all but the latest keepDeletes deletions. Its
// cost is spread over the appends that made it due.
func (j *Journal) compact() {
	forget := j.deletes - j.keepDeletes
	kept := make([]record, 0, len(j.entries))
	for _, r := range j.log {
		if !j.current(r) {
			continue
		}
		if r.entry.deleted && forget > 0 {
			forget--
			j.deletes--
			j.floor = r.at
			delete(j.entries, r.entry.object.Key)
			continue
		}
		kept = append(kept, r)
	}
	j.log = kept
}

// Next implements Source. A snapshot ends with the first batch that reaches the
// head, so an object that changes while the snapshot runs is in it, in its newest
// state, rather than dropped at End and sent again.
func (j *Journal) Next(c Cursor, limit Limit) (Batch, Cursor, bool) {
	var batch Batch
	forgotten := j.floor > c.at && j.floor > c.begin
	if c.phase == phaseNew || forgotten {
		c = Cursor{begin: j.head, phase: phaseSnapshot}
		batch.Begin = true
	}
	more := j.collect(&batch, &c, limit)
	if c.phase == phaseSnapshot && !more {
		batch.End = true
		c.phase = phaseFollowing
	}
	batch.Checkpoint = c.at
	ok := batch.Begin || batch.End || len(batch.Upserts) > 0 || len(batch.Deletes) > 0
	return batch, c, ok
}

// collect fills the batch up to the limit and reports whether more is left.
func (j *Journal) collect(batch *Batch, c *Cursor, limit Limit) (more bool) {
	first := sort.Search(len(j.log), func(i int) bool { return j.log[i].at > c.at })
	size := 0
	for _, r := range j.log[first:] {
		if !j.current(r) {
			continue
		}
		count := len(batch.Upserts) + len(batch.Deletes)
		size += len(r.entry.object.JSON)
		if count > 0 && (count >= limit.Objects || size > limit.Bytes) {
			return true
		}
		c.at = r.at
		if !r.entry.deleted {
			batch.Upserts = append(batch.Upserts, r.entry.object)
		} else if r.at > c.begin || c.phase == phaseFollowing {
			batch.Deletes = append(batch.Deletes, r.entry.object.Key)
		}
	}
	c.at = j.head
	return false
}
