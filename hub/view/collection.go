package view

import (
	"maps"
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/google/btree"
	"k8s.io/apimachinery/pkg/watch"

	"tripod.dev/tripod/syncer"
)

// collection is one resource over all clusters.
//
// mu is held for index work only: lists iterate over copy-on-write clones, and
// watches read the history in slices, both without the lock.
type collection struct {
	sequence *atomic.Uint64
	keep     int

	mu       sync.Mutex
	resource syncer.Resource
	shards   map[string]*shard
	// history are the latest events, oldest first; events up to forgotten are
	// no longer in it.
	history   []event
	forgotten uint64
	changed   chan struct{}
}

// shard is one cluster's part of a collection.
type shard struct {
	tree *btree.BTreeG[*object]
	// seen are the keys of the snapshot being taken; nil outside of one.
	seen map[syncer.Key]struct{}
}

// event is one change. before is nil for a new object, after for a deleted one.
type event struct {
	version       uint64
	before, after *object
}

func newCollection(resource syncer.Resource, sequence *atomic.Uint64, keep int) *collection {
	return &collection{
		sequence: sequence, keep: keep, resource: resource,
		shards: map[string]*shard{}, forgotten: sequence.Load(), changed: make(chan struct{}),
	}
}

// change is a parsed ViewDelta.
type change struct {
	begin, end bool
	upserts    []*object
	deletes    []syncer.Key
}

// apply takes a cluster's change. Objects that did not change since a former
// snapshot cause no event.
func (c *collection) apply(cluster string, resource syncer.Resource, ch change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resource = resource
	s, ok := c.shards[cluster]
	if !ok {
		s = &shard{tree: btree.NewG(32, less)}
		c.shards[cluster] = s
	}
	before := len(c.history)
	if ch.begin {
		s.seen = map[syncer.Key]struct{}{}
	}
	for _, o := range ch.upserts {
		if s.seen != nil {
			s.seen[o.key] = struct{}{}
		}
		c.upsertLocked(s, o)
	}
	for _, key := range ch.deletes {
		c.deleteLocked(s, key)
	}
	if ch.end && s.seen != nil {
		for _, key := range s.unseen() {
			c.deleteLocked(s, key)
		}
		s.seen = nil
	}
	if len(c.history) != before {
		c.publishLocked()
	}
}

func (s *shard) unseen() []syncer.Key {
	var keys []syncer.Key
	s.tree.Ascend(func(o *object) bool {
		if _, ok := s.seen[o.key]; !ok {
			keys = append(keys, o.key)
		}
		return true
	})
	return keys
}

func (c *collection) upsertLocked(s *shard, o *object) {
	old, exists := s.tree.Get(o)
	if exists && old.source == o.source {
		return
	}
	o.stamp(c.sequence.Add(1))
	s.tree.ReplaceOrInsert(o)
	c.history = append(c.history, event{version: o.version, before: old, after: o})
}

func (c *collection) deleteLocked(s *shard, key syncer.Key) {
	old, exists := s.tree.Delete(&object{key: key})
	if exists {
		c.history = append(c.history, event{version: c.sequence.Add(1), before: old})
	}
}

// drop removes a cluster's part.
func (c *collection) drop(cluster string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.shards[cluster]
	if !ok {
		return
	}
	s.seen = map[syncer.Key]struct{}{}
	for _, key := range s.unseen() {
		c.deleteLocked(s, key)
	}
	delete(c.shards, cluster)
	c.publishLocked()
}

// publishLocked bounds the history and wakes the watches.
func (c *collection) publishLocked() {
	if len(c.history) > 2*c.keep {
		cut := len(c.history) - c.keep
		c.forgotten = c.history[cut-1].version
		c.history = slices.Clone(c.history[cut:])
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

// since returns the events after version and a channel that is closed when there
// are more; ok is false when events after version are no longer known, or when
// version is not one of this view.
func (c *collection) since(version uint64) (events []event, upTo uint64, more <-chan struct{}, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	upTo = c.sequence.Load()
	if version < c.forgotten || version > upTo {
		return nil, 0, nil, false
	}
	first := sort.Search(len(c.history), func(i int) bool { return c.history[i].version > version })
	// The slice is only appended to, or replaced: reading it needs no lock.
	return slices.Clip(c.history[first:]), upTo, c.changed, true
}

// snapshot is the collection at one version.
type snapshot struct {
	resource syncer.Resource
	version  uint64
	clusters []string
	trees    map[string]*btree.BTreeG[*object]
}

// snapshot costs O(clusters): the trees are shared until they are written to.
func (c *collection) snapshot(visible func(cluster string) bool) snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	taken := snapshot{resource: c.resource, version: c.sequence.Load(), trees: map[string]*btree.BTreeG[*object]{}}
	for cluster, s := range c.shards {
		if visible(cluster) {
			taken.trees[cluster] = s.tree.Clone()
		}
	}
	taken.clusters = slices.Sorted(maps.Keys(taken.trees))
	return taken
}

// place is a position in the order of a list: cluster, namespace, name.
type place struct {
	Cluster   string `json:"c"`
	Namespace string `json:"s"`
	Name      string `json:"n"`
}

// walk yields the objects after a place in order, those of one namespace if it
// is not empty, until yield returns false.
func (s snapshot) walk(after place, namespace string, yield func(*object) bool) {
	for _, cluster := range s.clusters {
		if cluster < after.Cluster {
			continue
		}
		pivot := &object{key: syncer.Key{Namespace: namespace}}
		if cluster == after.Cluster {
			pivot.key = syncer.Key{Namespace: after.Namespace, Name: after.Name}
		}
		going := true
		s.trees[cluster].AscendGreaterOrEqual(pivot, func(o *object) bool {
			if namespace != "" && o.key.Namespace != namespace {
				return o.key.Namespace < namespace
			}
			if cluster == after.Cluster && o.key == pivot.key {
				return true
			}
			going = yield(o)
			return going
		})
		if !going {
			return
		}
	}
}

// seenBy tells a watcher with a selector what the event means to it, and which
// object it shows; false when it means nothing.
func (e event) seenBy(matches func(*object) bool) (watch.EventType, *object, bool) {
	was := e.before != nil && matches(e.before)
	is := e.after != nil && matches(e.after)
	switch {
	case is && was:
		return watch.Modified, e.after, true
	case is:
		return watch.Added, e.after, true
	case was:
		return watch.Deleted, e.before.at(e.version), true
	}
	return "", nil, false
}

func (c *collection) snapshotResource() syncer.Resource {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.resource
}
