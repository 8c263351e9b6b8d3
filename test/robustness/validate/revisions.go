package validate

import (
	"maps"
	"slices"
	"strings"
	"time"

	"tripod.dev/tripod/test/robustness/model"
)

// revisions is what happened, revision by revision, as the watches of everything
// tell it.
type revisions struct {
	events map[int64][]model.Event
	// seen is when the first watch told a revision.
	seen map[int64]time.Duration
	last int64
	// of finds the revision of a value.
	of map[string]int64
	// leases finds the lease that a key was asked to be written with.
	leases map[string]int64
}

// gather joins what the watches of everything tell.
func (c *checker) gather() {
	r := &revisions{events: map[int64][]model.Event{}, seen: map[int64]time.Duration{}, of: map[string]int64{}, leases: map[string]int64{}}
	c.revisions = r
	for _, o := range c.history.Operations {
		if o.Lease != 0 {
			r.leases[o.Key] = o.Lease
		}
	}
	for _, w := range c.history.Watches {
		for _, response := range w.Responses {
			for revision, events := range byRevision(response.Events) {
				if at, ok := r.seen[revision]; !ok || response.At < at {
					r.seen[revision] = response.At
				}
				if w.Prefix != "" {
					continue
				}
				have, ok := r.events[revision]
				if !ok {
					r.events[revision] = events
					r.last = max(r.last, revision)
				} else if !slices.Equal(have, events) {
					c.violate(WatchesAgree, "revision %d: %s tells %v, another watch %v", revision, w.Member, events, have)
				}
			}
		}
	}
	for revision := int64(2); revision <= r.last; revision++ {
		events, ok := r.events[revision]
		if !ok {
			c.violate(WatchComplete, "no watch of everything tells revision %d, the last is %d", revision, r.last)
		}
		for _, e := range events {
			if e.Deleted {
				continue
			}
			if before, twice := r.of[e.Item.Value]; twice {
				c.violate(Asked, "%s was written at revision %d and again at %d", e.Item.Value, before, revision)
			}
			r.of[e.Item.Value] = revision
		}
	}
}

// byRevision sorts the events of a response.
func byRevision(events []model.Event) map[int64][]model.Event {
	out := map[int64][]model.Event{}
	for _, e := range events {
		if e.Deleted {
			// The rest of a deleted key is not told.
			e.Item = model.Item{Key: e.Item.Key, Modified: e.Item.Modified}
		}
		out[e.Item.Modified] = append(out[e.Item.Modified], e)
	}
	for _, events := range out {
		model.SortEvents(events)
	}
	return out
}

// within is what a watch of prefix is to tell of a revision.
func (r *revisions) within(revision int64, prefix string) []model.Event {
	var out []model.Event
	for _, e := range r.events[revision] {
		if strings.HasPrefix(e.Item.Key, prefix) {
			out = append(out, e)
		}
	}
	return out
}

// attribute holds every acknowledged write to the history of revisions, and every
// revision to what was asked for.
func (c *checker) attribute() {
	asked := map[string]model.Operation{}
	unclaimed := maps.Clone(c.revisions.events)
	for _, o := range c.history.Operations {
		if o.Value != "" {
			asked[o.Value] = o
		}
		if o.Response == nil || !changes(o) {
			continue
		}
		revision := o.Response.Revision
		if _, ok := unclaimed[revision]; !ok && revision > 1 {
			c.violate(Acknowledged, "%s of %s by client %d was acknowledged at revision %d, which is not in the history or was acknowledged to another",
				o.Kind, o.Key, o.Client, revision)
			continue
		}
		if o.Value != "" && c.revisions.of[o.Value] != revision {
			c.violate(Acknowledged, "%s=%s by client %d was acknowledged at revision %d and is in the history at %d", o.Key, o.Value, o.Client, revision, c.revisions.of[o.Value])
		}
		delete(unclaimed, revision)
	}
	for revision, events := range c.revisions.events {
		for _, e := range events {
			if e.Deleted {
				continue
			}
			o, ok := asked[e.Item.Value]
			if !ok || o.Key != e.Item.Key || o.Lease != e.Item.Lease {
				c.violate(Asked, "revision %d: nobody asked for %s=%s with lease %x", revision, e.Item.Key, e.Item.Value, e.Item.Lease)
			}
		}
	}
	for revision, events := range unclaimed {
		c.explain(revision, events)
	}
}

// explain looks for a reason for deletions that nobody was told of.
func (c *checker) explain(revision int64, events []model.Event) {
	if hasPut(events) || c.leaseOf(events) != 0 {
		return
	}
	for _, o := range c.history.Operations {
		if o.Response == nil && (o.Kind == model.Delete || o.Kind == model.DeleteRange) && covers(o, events) {
			return
		}
	}
	c.violate(Asked, "revision %d: nobody asked to delete %v", revision, events)
}

func changes(o model.Operation) bool {
	switch o.Kind {
	case model.Put:
		return true
	case model.Txn:
		return o.Response.Succeeded
	case model.Delete, model.DeleteRange:
		return o.Response.Deleted > 0
	}
	return false
}

func hasPut(events []model.Event) bool {
	return slices.ContainsFunc(events, func(e model.Event) bool { return !e.Deleted })
}

// covers says whether a deletion without an answer can have done all of events.
func covers(o model.Operation, events []model.Event) bool {
	return !slices.ContainsFunc(events, func(e model.Event) bool {
		if o.Kind == model.DeleteRange {
			return !strings.HasPrefix(e.Item.Key, o.Key)
		}
		return e.Item.Key != o.Key
	})
}
