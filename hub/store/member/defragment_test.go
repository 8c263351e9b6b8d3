package member_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/etcdapi"
	"tripod.dev/tripod/hub/store/member"
	"tripod.dev/tripod/hub/store/storetest"
)

func TestWhoseDatabaseIsRewrittenNext(t *testing.T) {
	const mib = 1 << 20
	file := func(name string, size, used int64) member.File {
		return member.File{Name: name, Answers: true, Bytes: size * mib, Used: used * mib}
	}
	leader := func(f member.File) member.File { f.Leader = true; return f }
	silent := func(f member.File) member.File { f.Answers = false; return f }
	quiet := func(f member.File) member.File { f.Quiet = true; return f }
	lagging := func(f member.File) member.File { f.Behind = 501; return f }
	tests := map[string]struct {
		files    []member.File
		name, to string
	}{
		"nothing has holes": {files: []member.File{leader(file("a", 500, 400)), file("b", 500, 400), file("c", 500, 400)}},
		"the follower with the most holes is first": {
			files: []member.File{leader(file("a", 900, 100)), file("b", 500, 200), file("c", 600, 200)}, name: "c",
		},
		"a leader with holes waits for the followers": {
			files: []member.File{leader(file("a", 900, 100)), file("b", 500, 200), file("c", 300, 290)}, name: "b",
		},
		"a leader that alone has holes gives the leadership away": {
			files: []member.File{leader(file("a", 900, 100)), file("b", 210, 200), file("c", 201, 200)}, to: "c",
		},
		"a small file is not worth it":                 {files: []member.File{leader(file("a", 90, 10)), file("b", 90, 10), file("c", 90, 10)}},
		"a small share is not worth it":                {files: []member.File{leader(file("a", 900, 500)), file("b", 900, 500), file("c", 900, 500)}},
		"nothing while a member is missing":            {files: []member.File{leader(file("a", 900, 100)), file("b", 900, 100), silent(file("c", 0, 0))}},
		"nothing while a member catches up":            {files: []member.File{leader(file("a", 900, 100)), file("b", 900, 100), lagging(file("c", 900, 100))}},
		"a hub of one member waits for a quiet moment": {files: []member.File{leader(file("a", 900, 100))}},
		"and takes it":                                 {files: []member.File{leader(quiet(file("a", 900, 100)))}, name: "a"},
		"but not for long":                             {files: []member.File{leader(quiet(file("a", 9000, 1100)))}},
		"nor for little":                               {files: []member.File{leader(quiet(file("a", 900, 800)))}},
		"one of three needs no quiet":                  {files: []member.File{leader(file("a", 500, 400)), quiet(file("b", 500, 400)), file("c", 9000, 1100)}, name: "c"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if name, to := member.NextDefragmented(test.files, member.HolesPolicy{}); name != test.name || to != test.to {
				t.Errorf("got %q, %q, want %q, %q", name, to, test.name, test.to)
			}
		})
	}
}

// rewriting watches who rewrites its database, and when.
type rewriting struct {
	at       atomic.Int64
	mu       sync.Mutex
	rewrote  map[string]int
	breaches []string
}

func (r *rewriting) point(c func() *storetest.Cluster, name string) store.Failpoints {
	return func(p store.Point) error {
		switch p {
		case store.BeforeDefragment:
			for _, m := range c().Members {
				if m.Name == name && m.Store.IsLeader() {
					r.breach(name + " rewrites its database while it leads")
				}
			}
			if r.at.Add(1) > 1 {
				r.breach(name + " rewrites its database while another member does")
			}
		case store.AfterDefragment:
			r.at.Add(-1)
			r.mu.Lock()
			defer r.mu.Unlock()
			r.rewrote[name]++
		}
		return nil
	}
}

func (r *rewriting) breach(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.breaches = append(r.breaches, text)
}

func (r *rewriting) all(n int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.rewrote) == n
}

// TestAllMembersAreDefragmentedUnderLoad: clients of every member write and read
// all the time, nothing that was acknowledged is lost, and the members end with
// the same.
func TestAllMembersAreDefragmentedUnderLoad(t *testing.T) {
	watched := &rewriting{rewrote: map[string]int{}}
	var c *storetest.Cluster
	c = storetest.Start(t, 3, func(s *store.Config, _ *etcdapi.Config) {
		s.Fail = watched.point(func() *storetest.Cluster { return c }, s.Name)
	})
	ctx, stop := context.WithTimeout(t.Context(), 2*storetest.Patience)
	defer stop()
	makeHoles(t, c, ctx)
	loading, stopLoad := context.WithCancel(ctx)
	var load sync.WaitGroup
	acknowledged := make([]int, len(c.Members))
	for i, m := range c.Members {
		client := c.Client(m)
		load.Go(func() {
			for loading.Err() == nil {
				if _, err := client.Put(ctx, fmt.Sprintf("load/%d", i), fmt.Sprint(acknowledged[i]+1)); err != nil {
					continue // a change of the leader; the next value is higher
				}
				acknowledged[i]++
				get, err := client.Get(ctx, fmt.Sprintf("load/%d", i))
				if err == nil && string(get.Kvs[0].Value) != fmt.Sprint(acknowledged[i]) {
					watched.breach(fmt.Sprintf("client %d read %s after it wrote %d", i, get.Kvs[0].Value, acknowledged[i]))
				}
			}
		})
	}
	for _, m := range c.Members {
		d := member.NewDefragmenter(member.DefragmenterConfig{
			Store: m.Store, Policy: member.HolesPolicy{Bytes: 1 << 20}, Interval: 20 * time.Millisecond, Patience: 2 * time.Second,
		})
		load.Go(func() { _ = d.Run(loading) })
	}
	c.Eventually("every member has rewritten its database", func() bool { return watched.all(len(c.Members)) })
	before := acknowledged[0]
	stopLoad()
	load.Wait()
	for _, breach := range watched.breaches {
		t.Error(breach)
	}
	if before == 0 {
		t.Error("nothing was acknowledged meanwhile, so this test shows nothing")
	}
	same(t, c)
	for i, m := range c.Members {
		if size, _ := m.Store.Maintenance().Size(); size > 2<<20 {
			t.Errorf("the database of %s still has %d bytes", m.Name, size)
		}
		get, err := c.Client(m).Get(ctx, fmt.Sprintf("load/%d", i))
		// The last one may have been written without being acknowledged.
		if err != nil || len(get.Kvs) != 1 || string(get.Kvs[0].Value) != fmt.Sprint(acknowledged[i]) && string(get.Kvs[0].Value) != fmt.Sprint(acknowledged[i]+1) {
			t.Errorf("client %d was acknowledged %d, found %v %v", i, acknowledged[i], get, err)
		}
		kept, err := c.Client(m).Get(ctx, "kept/", clientv3.WithPrefix())
		if err != nil || len(kept.Kvs) != 20 {
			t.Errorf("%s has %v of 20 old keys: %v", m.Name, kept, err)
		}
	}
}

// makeHoles leaves every file of some 4 MiB nearly empty.
func makeHoles(t *testing.T, c *storetest.Cluster, ctx context.Context) {
	t.Helper()
	client := c.Client()
	// On a busy machine the leader may change; all of this may be repeated.
	insist := func(what string, do func() error) {
		t.Helper()
		c.Eventually(what, func() bool { return do() == nil })
	}
	put := func(key, value string) {
		t.Helper()
		insist("put "+key, func() error { _, err := client.Put(ctx, key, value); return err })
	}
	for i := range 20 {
		put(fmt.Sprintf("kept/%d", i), "v")
	}
	for i := range 64 {
		put(fmt.Sprintf("big/%d", i), strings.Repeat("v", 64<<10))
	}
	insist("delete", func() error { _, err := client.Delete(ctx, "big/", clientv3.WithPrefix()); return err })
	insist("compact", func() error {
		get, err := client.Get(ctx, "kept/0")
		if err != nil {
			return err
		}
		_, err = client.Compact(ctx, get.Header.Revision, clientv3.WithCompactPhysical())
		return err
	})
}

func same(t *testing.T, c *storetest.Cluster) {
	t.Helper()
	c.Converged()
	hashes := map[uint32]string{}
	for _, m := range c.Members {
		hash, _, err := m.Store.Maintenance().Hashes().Hash()
		if err != nil {
			t.Fatal(err)
		}
		hashes[hash] += " " + m.Name
	}
	if len(hashes) != 1 {
		t.Errorf("members differ: %v", hashes)
	}
}

func TestAHubOfOneMemberRewritesItsDatabaseInAQuietMoment(t *testing.T) {
	c := storetest.Start(t, 1, nil)
	makeHoles(t, c, t.Context())
	alone := c.Leader()
	start := func(policy member.HolesPolicy) (d *member.Defragmenter, stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		d = member.NewDefragmenter(member.DefragmenterConfig{Store: alone.Store, Policy: policy, Interval: 20 * time.Millisecond})
		var running sync.WaitGroup
		running.Go(func() { _ = d.Run(ctx) })
		return d, func() { cancel(); running.Wait() }
	}
	before, _ := alone.Store.Maintenance().Size()
	// Too much for a pause that nobody ordered: it is said, and nothing is done.
	d, stop := start(member.HolesPolicy{Bytes: 1 << 20, Alone: 1})
	c.Eventually("it is said that a person must order it", func() bool { return strings.Contains(d.Problem(), "tripodctl hub defragment "+alone.Name) })
	stop()
	if size, _ := alone.Store.Maintenance().Size(); size != before {
		t.Errorf("%d bytes became %d", before, size)
	}
	d, stop = start(member.HolesPolicy{Bytes: 1 << 20})
	defer stop()
	c.Eventually("the database is rewritten", func() bool {
		size, _ := alone.Store.Maintenance().Size()
		return size <= 2<<20
	})
	if d.Problem() != "" {
		t.Errorf("afterwards: %s", d.Problem())
	}
	kept, err := c.Client(alone).Get(t.Context(), "kept/", clientv3.WithPrefix())
	if err != nil || len(kept.Kvs) != 20 {
		t.Errorf("it has %v of 20 old keys: %v", kept, err)
	}
}

func TestOneMemberIsDefragmentedOnOrder(t *testing.T) {
	c := storetest.Start(t, 3, nil)
	leader, follower := c.Leader(), c.Follower()
	makeHoles(t, c, t.Context())
	c.Converged()
	order := func(at *storetest.Member, name string) error {
		return member.NewDefragmenter(member.DefragmenterConfig{Store: at.Store}).Defragment(t.Context(), name)
	}
	if err := order(follower, follower.Name); !errors.Is(err, store.ErrNotLeader) {
		t.Errorf("ordered from a follower: %v", err)
	}
	if err := order(leader, leader.Name); !errors.Is(err, member.ErrIsLeader) {
		t.Errorf("the leader's own: %v", err)
	}
	before, _ := follower.Store.Maintenance().Size()
	if err := order(leader, follower.Name); err != nil {
		t.Fatal(err)
	}
	if after, _ := follower.Store.Maintenance().Size(); after > before/2 {
		t.Errorf("%d bytes before, %d after", before, after)
	}
	same(t, c)

	_, write, release := follower.Store.Maintenance().Copy()
	if err := order(leader, follower.Name); err == nil || !strings.Contains(err.Error(), "a backup or a snapshot") {
		t.Errorf("while a backup is taken: %v", err)
	}
	if n, err := write(&strings.Builder{}); err != nil || n == 0 {
		t.Errorf("the backup: %d bytes, %v", n, err)
	}
	if err := errors.Join(release(), release()); err != nil {
		t.Error(err)
	}
	if err := order(leader, follower.Name); err != nil {
		t.Errorf("after the backup: %v", err)
	}

	for _, m := range c.Members {
		if m != leader && m != follower {
			m.Stop()
		}
	}
	if err := order(leader, follower.Name); !errors.Is(err, member.ErrRefused) || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("while a member is missing: %v", err)
	}
}
