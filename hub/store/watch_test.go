package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/etcdapi"
	"tripod.dev/tripod/hub/store/storetest"
)

// TestWatchIsOrderedAndCompleteAcrossRestarts restarts every member in turn
// under a watch while writes go on.
func TestWatchIsOrderedAndCompleteAcrossRestarts(t *testing.T) {
	c := storetest.Start(t, 3, nil)
	c.Leader()
	ctx := patience(t)
	client := c.Client()
	watch := client.Watch(ctx, "key", clientv3.WithPrefix(), clientv3.WithRev(1))
	writing, stop := context.WithCancel(ctx)
	done := make(chan int64, 1)
	go func() {
		var last int64
		for i := 0; writing.Err() == nil; i++ {
			attempt, cancel := context.WithTimeout(ctx, time.Second)
			if r, err := client.Put(attempt, fmt.Sprintf("key%d", i%7), fmt.Sprint(i)); err == nil {
				last = r.Header.Revision
			}
			cancel()
		}
		done <- last
	}()
	for _, m := range c.Members {
		m.Stop()
		c.Leader()
		m.Start()
		c.Eventually("the member is back", func() bool {
			attempt, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			return m.Store.Linearize(attempt) == nil
		})
	}
	stop()
	last := <-done
	for next := int64(2); next <= last; {
		r, ok := <-watch
		if !ok || r.Err() != nil {
			t.Fatalf("watch ended before revision %d: %v", next, r.Err())
		}
		for _, e := range r.Events {
			if e.Kv.ModRevision != next {
				t.Fatalf("event of revision %d, want %d", e.Kv.ModRevision, next)
			}
			next++
		}
	}
}

func TestWatchOfCompactedRevisionSaysSo(t *testing.T) {
	c := storetest.Start(t, 3, nil)
	c.Leader()
	ctx := patience(t)
	client := c.Client()
	var revision int64
	for i := range 10 {
		r, err := client.Put(ctx, "key", fmt.Sprint(i))
		if err != nil {
			t.Fatal(err)
		}
		revision = r.Header.Revision
	}
	if _, err := client.Compact(ctx, revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	c.Converged()
	for _, m := range c.Members {
		client := c.Client(m)
		r := <-client.Watch(ctx, "key", clientv3.WithRev(3))
		if r.CompactRevision != revision || !errors.Is(r.Err(), rpctypes.ErrCompacted) {
			t.Fatalf("%s: %+v", m.Name, r)
		}
		if _, err := client.Get(ctx, "key", clientv3.WithRev(3)); !errors.Is(err, rpctypes.ErrCompacted) {
			t.Fatalf("%s: get of a compacted revision: %v", m.Name, err)
		}
		if _, err := client.Get(ctx, "key", clientv3.WithRev(revision+100)); !errors.Is(err, rpctypes.ErrFutureRev) {
			t.Fatalf("%s: get of a future revision: %v", m.Name, err)
		}
		if _, err := client.Compact(ctx, 2); !errors.Is(err, rpctypes.ErrCompacted) {
			t.Fatalf("%s: compaction of a compacted revision: %v", m.Name, err)
		}
	}
}

// TestProgressIsNeverAheadOfEvents asks a follower for progress while the leader
// writes: after a notification at revision r no event at or under r may come.
// Kubernetes' consistent reads from its cache rest on it.
func TestProgressIsNeverAheadOfEvents(t *testing.T) {
	c := storetest.Start(t, 3, nil)
	leader := c.Leader()
	ctx := patience(t)
	watcher := c.Client(c.Follower())
	watch := watcher.Watch(ctx, "key", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	if r := <-watch; !r.Created {
		t.Fatalf("first response %+v", r)
	}
	const writes = 300
	go func() {
		for i := range writes {
			if _, err := leader.Store.Propose(ctx, putOp("key", fmt.Sprint(i))); err != nil {
				return
			}
			if i%10 == 0 {
				_ = watcher.RequestProgress(ctx)
			}
		}
	}()
	var seen, progress int64
	notifications := 0
	for events := 0; events < writes; {
		r, ok := <-watch
		if !ok || r.Err() != nil {
			t.Fatalf("watch ended: %v", r.Err())
		}
		if r.IsProgressNotify() {
			notifications++
			progress = r.Header.Revision
			if progress < seen {
				t.Fatalf("progress %d after event %d", progress, seen)
			}
			continue
		}
		for _, e := range r.Events {
			if e.Kv.ModRevision <= progress {
				t.Fatalf("event of revision %d after progress %d", e.Kv.ModRevision, progress)
			}
			seen = e.Kv.ModRevision
			events++
		}
	}
	if err := watcher.RequestProgress(ctx); err != nil {
		t.Fatal(err)
	}
	for r := range watch {
		if r.IsProgressNotify() && r.Header.Revision >= seen {
			break
		}
	}
	t.Logf("%d notifications among %d events", notifications, writes)
}

func TestWatchFragmentsPrevKVAndFilters(t *testing.T) {
	c := storetest.Start(t, 1, func(_ *store.Config, a *etcdapi.Config) { a.MaxRequestBytes = 16 * 1024 })
	m := c.Leader()
	ctx := patience(t)
	client := c.Client()
	var ops []clientv3.Op
	for i := range 20 {
		if _, err := m.Store.Propose(ctx, putOp(fmt.Sprintf("k%02d", i), strings.Repeat("a", 2048))); err != nil {
			t.Fatal(err)
		}
		ops = append(ops, clientv3.OpDelete(fmt.Sprintf("k%02d", i)))
	}
	start := m.Store.Revision() + 1
	if _, err := client.Txn(ctx).Then(ops...).Commit(); err != nil {
		t.Fatal(err)
	}
	// 20 previous values of 2 KiB do not fit one fragment of 16 KiB.
	r := <-client.Watch(ctx, "k", clientv3.WithPrefix(), clientv3.WithRev(start), clientv3.WithFragment(), clientv3.WithPrevKV(), clientv3.WithFilterPut())
	if len(r.Events) != 20 {
		t.Fatalf("%d events, want 20", len(r.Events))
	}
	for _, e := range r.Events {
		if e.Type != clientv3.EventTypeDelete || e.PrevKv == nil || len(e.PrevKv.Value) != 2048 {
			t.Fatalf("event %+v", e)
		}
	}
	filtered := client.Watch(ctx, "k", clientv3.WithPrefix(), clientv3.WithRev(start), clientv3.WithFilterDelete())
	put, err := client.Put(ctx, "k", "last")
	if err != nil {
		t.Fatal(err)
	}
	if r := <-filtered; len(r.Events) != 1 || r.Events[0].Kv.ModRevision != put.Header.Revision {
		t.Fatalf("filtered watch: %+v", r)
	}
}

func TestWatchThatRequiresALeaderEndsWithoutOne(t *testing.T) {
	c := storetest.Start(t, 3, nil)
	c.Leader()
	alone := c.Follower()
	ctx := clientv3.WithRequireLeader(patience(t))
	watch := c.Client(alone).Watch(ctx, "key", clientv3.WithCreatedNotify())
	if r := <-watch; !r.Created {
		t.Fatalf("first response %+v", r)
	}
	c.Network.Cut([]string{alone.Name}, names(c.Members, alone))
	r := <-watch
	if !errors.Is(r.Err(), rpctypes.ErrNoLeader) {
		t.Fatalf("got %+v: %v", r, r.Err())
	}
}

// TestWatchEndsWhenAResponseCannotBeSent fails one response: the client must learn
// of it, or it would wait for ever on a stream that says nothing.
func TestWatchEndsWhenAResponseCannotBeSent(t *testing.T) {
	var failed atomic.Bool
	c := storetest.Start(t, 1, func(_ *store.Config, a *etcdapi.Config) {
		a.Fail = func(p store.Point) error {
			if p == store.BeforeWatchSend && failed.CompareAndSwap(false, true) {
				return errors.New("the connection breaks")
			}
			return nil
		}
	})
	c.Leader()
	ctx := patience(t)
	client := c.Client()
	watch := client.Watch(ctx, "key", clientv3.WithCreatedNotify())
	if r := <-watch; !r.Created {
		t.Fatalf("first response %+v", r)
	}
	if _, err := client.Put(ctx, "key", "value"); err != nil {
		t.Fatal(err)
	}
	if r := <-watch; r.Err() == nil || ctx.Err() != nil {
		t.Fatalf("got %+v: %v", r, ctx.Err())
	}
}
