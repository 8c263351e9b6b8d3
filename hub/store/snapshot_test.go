package store_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/etcdapi"
	"tripod.dev/tripod/hub/store/storetest"
)

func eager(s *store.Config, _ *etcdapi.Config) {
	s.SnapshotThreshold, s.TrailingLogs, s.SnapshotInterval = 20, 5, 50*time.Millisecond
	// raft-wal serves dropped entries until their whole file is dropped.
	s.SegmentBytes = 16 << 10
}

// TestLaggingMemberIsCaughtUpBySnapshotWithItsWatches watches on the member that
// lags, so that the snapshot replaces the state under the watch.
func TestLaggingMemberIsCaughtUpBySnapshotWithItsWatches(t *testing.T) {
	registries := map[string]*prometheus.Registry{}
	c := storetest.Start(t, 3, func(s *store.Config, a *etcdapi.Config) {
		eager(s, a)
		registries[s.Name] = prometheus.NewRegistry()
		s.Registerer = registries[s.Name]
	})
	leader := c.Leader()
	lagging := c.Follower()
	ctx := patience(t)
	if _, err := c.Client(leader).Put(ctx, "key", "first"); err != nil {
		t.Fatal(err)
	}
	c.Converged()
	watch := c.Client(lagging).Watch(ctx, "key", clientv3.WithPrefix(), clientv3.WithRev(2), clientv3.WithCreatedNotify())
	if r := <-watch; !r.Created {
		t.Fatalf("first response %+v", r)
	}
	c.Network.Cut([]string{lagging.Name}, names(c.Members, lagging))
	const writes = 200
	for range writes {
		if _, err := leader.Store.Propose(ctx, putOp("key", strings.Repeat("v", 1024))); err != nil {
			t.Fatal(err)
		}
	}
	if err := leader.Store.Maintenance().Snapshot(); err != nil && !strings.Contains(err.Error(), "nothing new") {
		t.Fatal(err)
	}
	c.Network.Heal()
	c.Converged()
	if n := counter(t, registries[lagging.Name], "tripod_store_snapshots_restored_total"); n == 0 {
		t.Fatal("the member caught up without a snapshot, so this test shows nothing")
	}
	next := int64(2)
	for next <= 2+writes {
		r, ok := <-watch
		if !ok || r.Err() != nil {
			t.Fatalf("watch ended at revision %d: %v", next, r.Err())
		}
		for _, e := range r.Events {
			if e.Kv.ModRevision != next {
				t.Fatalf("event of revision %d, want %d", e.Kv.ModRevision, next)
			}
			next++
		}
	}
	assertSameHash(t, c, ctx)
}

func assertSameHash(t *testing.T, c *storetest.Cluster, ctx context.Context) {
	t.Helper()
	want, rev, err := c.Members[0].Store.Maintenance().Hashes().Hash()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range c.Members[1:] {
		got, r, err := m.Store.Maintenance().Hashes().Hash()
		if err != nil {
			t.Fatal(err)
		}
		if got != want || r != rev {
			t.Fatalf("%s has hash %x at %d, m0 has %x at %d", m.Name, got, r, want, rev)
		}
	}
}

func TestRestartAfterSnapshotsKeepsEverything(t *testing.T) {
	c := storetest.Start(t, 1, eager)
	m := c.Leader()
	ctx := patience(t)
	for i := range 100 {
		if _, err := m.Store.Propose(ctx, putOp(fmt.Sprintf("k%d", i), "v")); err != nil {
			t.Fatal(err)
		}
	}
	c.Eventually("a snapshot is on disk", func() bool {
		found, _ := filepath.Glob(filepath.Join(m.Dir, "raft", "snapshots", "*", "state.bin"))
		return len(found) > 0
	})
	for range 3 {
		m.Stop()
		m.Start()
	}
	kvs, _, err := m.Store.Range(ctx, "k")
	if err != nil || len(kvs) != 100 {
		t.Fatalf("%d keys after restarts, want 100: %v", len(kvs), err)
	}
}

// TestSnapshotNewerThanTheDatabase is what a crash leaves between keeping a
// received snapshot and putting it in place.
func TestSnapshotNewerThanTheDatabase(t *testing.T) {
	tests := map[string]struct {
		damage  func(t *testing.T, state string)
		refused string
	}{
		"a whole snapshot is restored at the start": {func(*testing.T, string) {}, ""},
		"a snapshot that is cut off is refused and named": {func(t *testing.T, state string) {
			info, err := os.Stat(state)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(state, info.Size()/2); err != nil {
				t.Fatal(err)
			}
		}, "cannot be used"},
		"a snapshot with a flipped bit is refused and named": {func(t *testing.T, state string) {
			data, err := os.ReadFile(state)
			if err != nil {
				t.Fatal(err)
			}
			data[len(data)/2] ^= 1
			if err := os.WriteFile(state, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "cannot be used"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := storetest.Start(t, 1, nil)
			m := c.Leader()
			ctx := patience(t)
			for i := range 30 {
				if _, err := m.Store.Propose(ctx, putOp(fmt.Sprintf("k%d", i), "v")); err != nil {
					t.Fatal(err)
				}
			}
			if err := m.Store.Maintenance().Snapshot(); err != nil {
				t.Fatal(err)
			}
			m.Stop()
			if err := os.Remove(filepath.Join(m.Dir, "db")); err != nil {
				t.Fatal(err)
			}
			states, err := filepath.Glob(filepath.Join(m.Dir, "raft", "snapshots", "*", "state.bin"))
			if err != nil || len(states) != 1 {
				t.Fatalf("snapshots %v: %v", states, err)
			}
			test.damage(t, states[0])
			err = m.TryStart()
			if test.refused != "" {
				if err == nil || !strings.Contains(err.Error(), test.refused) || !strings.Contains(err.Error(), filepath.Dir(states[0])) {
					t.Fatalf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			kvs, _, err := m.Store.Range(ctx, "k")
			if err != nil || len(kvs) != 30 {
				t.Fatalf("%d keys, want 30: %v", len(kvs), err)
			}
		})
	}
}

func TestLostLogIsNoticed(t *testing.T) {
	c := storetest.Start(t, 1, nil)
	m := c.Leader()
	for i := range 10 {
		if _, err := m.Store.Propose(patience(t), putOp("k", fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	m.Stop()
	if err := os.RemoveAll(filepath.Join(m.Dir, "raft")); err != nil {
		t.Fatal(err)
	}
	err := m.TryStart()
	if err == nil || !strings.Contains(err.Error(), "part of the log is lost") {
		t.Fatalf("got %v", err)
	}
}

func TestDatabaseThatDoesNotOpenIsNamed(t *testing.T) {
	c := storetest.Start(t, 1, nil)
	m := c.Leader()
	m.Stop()
	if err := os.WriteFile(filepath.Join(m.Dir, "db"), []byte("this is no database"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := m.TryStart()
	if err == nil || !strings.Contains(err.Error(), filepath.Join(m.Dir, "db")) {
		t.Fatalf("got %v", err)
	}
}
