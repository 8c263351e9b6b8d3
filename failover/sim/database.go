package sim

import (
	"slices"
	"time"
)

// write is one transaction.
type write struct {
	id    int
	epoch int64
}

// database is one copy. A primary alone owns what follows its log in memory, so
// a slice that was handed out never changes.
type database struct {
	running, primary bool
	boot             int
	formed, fenced   bool
	// closing takes no more sessions; orderly: it has stopped by itself, and its
	// log ends where it says.
	closing, orderly bool
	diverged         bool
	// partial: a copy is being made, or was torn; copying is its end.
	partial bool
	copying time.Duration
	epoch   int64
	log     []write
	waits   []string // standbys whose confirmation a commit needs

	// of a primary, by standby
	flushed [centers]int
	heard   [centers]time.Duration
	pending []pending

	// of a replica
	follows    int
	receivedAt time.Duration
	caughtUpAt time.Duration
}

// pending is a write that waits for its standbys.
type pending struct {
	at   int // its place in the log
	w    write
	done func()
}

func (d *database) stop() {
	d.running, d.closing, d.orderly = false, false, false
	d.boot++
	d.pending = nil
}

func (d *database) start() {
	d.running, d.closing, d.orderly = true, false, false
	d.boot++
	d.heard, d.flushed = [centers]time.Duration{}, [centers]int{}
}

// accept appends a write; done is called when it is acknowledged.
func (s *site) accept(id int, done func(write)) {
	db := &s.db
	w := write{id, db.epoch}
	db.log = append(db.log, w)
	db.pending = append(db.pending, pending{len(db.log), w, func() { done(w) }})
	s.acknowledge()
	s.ship()
}

// acknowledge answers the writes that every awaited standby has.
func (s *site) acknowledge() {
	db := &s.db
	if !db.running || !db.primary {
		return
	}
	have := len(db.log)
	for _, name := range db.waits {
		have = min(have, db.flushed[siteOf(name)])
	}
	for len(db.pending) > 0 && db.pending[0].at <= have {
		done := db.pending[0].done
		db.pending = db.pending[1:]
		done()
	}
}

func (s *site) replicate() {
	s.w.after(200*time.Millisecond, s.replicate)
	s.ship()
}

// ship sends the log to every replica that follows this primary.
func (s *site) ship() {
	db := &s.db
	if !db.running || !db.primary {
		return
	}
	log, epoch, boot := db.log, db.epoch, db.boot
	for _, t := range s.lane.sites {
		if t == s {
			continue
		}
		s.w.send(s.id, t.id, func() {
			r := &t.db
			if !r.running || r.primary || r.follows != s.id || r.epoch != epoch {
				return
			}
			if len(log) > len(r.log) {
				r.log = log
			}
			r.receivedAt, r.caughtUpAt = s.w.now, s.w.now
			n := len(r.log)
			s.w.send(t.id, s.id, func() {
				if db.boot == boot && db.running {
					db.flushed[t.id], db.heard[t.id] = max(db.flushed[t.id], n), s.w.now
					s.acknowledge()
				}
			})
		})
	}
}

// follow makes the copy a replica of primary. What it holds and the primary
// does not is taken back only when it cannot have been acknowledged.
func (s *site) follow(primary *site, epoch int64) bool {
	db, source := &s.db, &primary.db
	n := 0
	for n < len(db.log) && n < len(source.log) && db.log[n] == source.log[n] {
		n++
	}
	if n < len(db.log) && s.lane.check.lossy[epoch] {
		db.stop()
		db.diverged = true
		return false
	}
	anew := n < len(db.log) || db.partial || epoch > 1 && s.w.third.IntN(3) > 0
	if s.w.copies() && s.w.now != db.copying && anew {
		s.seed(primary, epoch, n)
		return true
	}
	db.stop()
	db.log, db.partial = slices.Clone(db.log[:n]), false
	s.closed = 0
	db.primary, db.fenced, db.formed, db.waits = false, false, true, nil
	db.epoch, db.follows = epoch, primary.id
	db.start()
	return true
}

// copies is true in the schedules in which copies are made anew, which takes its time:
// wherever something has to be taken back, and often when there is a new primary.
func (w *world) copies() bool { return w.opt.Seed%3 == 0 || w.opt.Bug == PartLooksWhole }

// seed copies a primary afresh: from its first moment on, and until it is through,
// the volume holds a part of a copy.
func (s *site) seed(primary *site, epoch int64, common int) {
	db := &s.db
	db.stop()
	db.log, db.partial, db.primary, db.formed = slices.Clone(db.log[:common]), true, false, false
	db.copying = s.w.now + s.w.between(2*time.Second, 12*time.Second)
	boot := db.boot
	s.w.trace("%s is copied anew from %s", s.name(), primary.name())
	s.w.after(db.copying-s.w.now, func() {
		p := &primary.db
		if db.boot != boot || !s.w.power[s.id] {
			return
		}
		if s.w.linked(s.id, primary.id) && p.running && p.primary && p.epoch == epoch && s.seenEpoch == epoch {
			s.follow(primary, epoch)
		}
		db.copying = 0
	})
}
