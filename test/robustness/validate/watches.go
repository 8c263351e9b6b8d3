package validate

import (
	"cmp"
	"slices"

	"tripod.dev/tripod/test/robustness/model"
)

func (c *checker) watches() {
	for i := range c.history.Watches {
		c.watch(&c.history.Watches[i])
	}
}

// watch holds one watch to the history of revisions: it must tell a stretch of it
// whole, beginning where it was asked to.
func (c *checker) watch(w *model.Watch) {
	next := w.From
	for _, response := range w.Responses {
		switch {
		case response.Created && w.From == 0:
			// The client of etcd resumes a watch of the present at this revision, which
			// may tell it once more.
			next = response.Revision + 1
			if first := firstRevision(w); first == response.Revision {
				next = first
			}
		case response.Compacted > 0:
			c.compacted(w, response, next)
		case response.Progress:
			c.untold(WatchProgress, w, next, response.Revision)
			next = max(next, response.Revision+1)
		default:
			next = c.events(w, response, next)
		}
	}
}

func firstRevision(w *model.Watch) int64 {
	for _, response := range w.Responses {
		for _, e := range response.Events {
			return e.Item.Modified
		}
	}
	return 0
}

// events checks one response of a watch that was told everything before next, and
// returns what it is to be told then.
func (c *checker) events(w *model.Watch, response model.WatchResponse, next int64) int64 {
	if !slices.IsSortedFunc(response.Events, func(a, b model.Event) int { return cmp.Compare(a.Item.Modified, b.Item.Modified) }) {
		c.violate(WatchOrder, "%s, prefix %q from %d: a response is not in the order of revisions: %v", w.Member, w.Prefix, w.From, response.Events)
	}
	told := byRevision(response.Events)
	for _, revision := range slices.Sorted(keys(told)) {
		if revision < next {
			rule := WatchOrder
			if revision < w.From {
				rule = WatchStart
			}
			c.violate(rule, "%s, prefix %q from %d: revision %d was told after everything before %d", w.Member, w.Prefix, w.From, revision, next)
			continue
		}
		c.untold(WatchComplete, w, next, revision-1)
		if want := c.revisions.within(revision, w.Prefix); !slices.Equal(want, told[revision]) {
			c.violate(WatchOrder, "%s, prefix %q from %d: of revision %d it tells %v, want %v", w.Member, w.Prefix, w.From, revision, told[revision], want)
		}
		next = revision + 1
	}
	if len(told) > 0 && response.Revision < next-1 {
		c.violate(WatchOrder, "%s, prefix %q from %d: the header says %d with events of %d", w.Member, w.Prefix, w.From, response.Revision, next-1)
	}
	return next
}

// untold complains of revisions that concern w and were left out.
func (c *checker) untold(rule Rule, w *model.Watch, from, to int64) {
	for revision := from; revision <= to; revision++ {
		if missed := c.revisions.within(revision, w.Prefix); len(missed) > 0 {
			c.violate(rule, "%s, prefix %q from %d: revision %d was left out: %v", w.Member, w.Prefix, w.From, revision, missed)
		}
	}
}

// compacted checks that what is refused as forgotten was asked to be forgotten
// before.
func (c *checker) compacted(w *model.Watch, response model.WatchResponse, next int64) {
	if next >= response.Compacted {
		c.violate(WatchCompacted, "%s, prefix %q from %d: refused at %d as compacted at %d", w.Member, w.Prefix, w.From, next, response.Compacted)
	}
	for _, compaction := range c.history.Compactions {
		if compaction.Revision == response.Compacted && compaction.Call <= response.At {
			return
		}
	}
	c.violate(WatchCompacted, "%s, prefix %q from %d: says compacted at %d, which nobody had asked for", w.Member, w.Prefix, w.From, response.Compacted)
}

// pastReads replays the history of revisions for reads of the past.
func (c *checker) pastReads() {
	reads := slices.Clone(c.history.PastReads)
	slices.SortFunc(reads, func(a, b model.PastRead) int { return cmp.Compare(a.Revision, b.Revision) })
	state := model.Empty()
	for _, read := range reads {
		for state.Revision < read.Revision {
			state = state.Replay(state.Revision+1, c.revisions.events[state.Revision+1])
		}
		possible, sure := c.forgotten(read)
		switch _, want := state.Apply(model.Request{Kind: model.Range, Key: read.Prefix}); {
		case read.Compacted && !possible:
			c.violate(PastReads, "%s says revision %d is compacted, which nobody had asked for", read.Member, read.Revision)
		case !read.Compacted && sure:
			c.violate(PastReads, "%s reads revision %d after it was compacted", read.Member, read.Revision)
		case !read.Compacted && !slices.Equal(want.Items, read.Items):
			c.violate(PastReads, "%s at revision %d: got %v, want %v", read.Member, read.Revision, read.Items, want.Items)
		}
	}
}

// forgotten says whether what read asks for may, and whether it must, have been
// compacted.
func (c *checker) forgotten(read model.PastRead) (possible, sure bool) {
	for _, compaction := range c.history.Compactions {
		if compaction.Revision > read.Revision {
			possible = possible || compaction.Call <= read.Return
			sure = sure || compaction.Done && compaction.Return < read.Call
		}
	}
	return possible, sure
}
