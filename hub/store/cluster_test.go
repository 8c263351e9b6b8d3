package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	clientv3 "go.etcd.io/etcd/client/v3"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/etcdapi"
	"tripod.dev/tripod/hub/store/storetest"
	raftlogv1 "tripod.dev/tripod/proto/raftlog/v1"
)

func patience(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*storetest.Patience)
	t.Cleanup(cancel)
	return ctx
}

// names of members, without those in except.
func names(members []*storetest.Member, except ...*storetest.Member) []string {
	var out []string
next:
	for _, m := range members {
		for _, e := range except {
			if m == e {
				continue next
			}
		}
		out = append(out, m.Name)
	}
	return out
}

func TestFailoverKeepsAcknowledgedWrites(t *testing.T) {
	c := storetest.Start(t, 3, nil)
	first := c.Leader()
	ctx := patience(t)
	stop := make(chan struct{})
	var mu sync.Mutex
	acknowledged := map[string]string{}
	var wg sync.WaitGroup
	for w := range 4 {
		client := c.Client()
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				key, value := fmt.Sprintf("w%d/%d", w, i), fmt.Sprint(i)
				attempt, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
				_, err := client.Put(attempt, key, value)
				cancel()
				if err == nil {
					mu.Lock()
					acknowledged[key] = value
					mu.Unlock()
				}
			}
		})
	}
	count := func() int { mu.Lock(); defer mu.Unlock(); return len(acknowledged) }
	c.Eventually("writes are acknowledged", func() bool { return count() > 50 })
	c.Network.Cut([]string{first.Name}, names(c.Members, first))
	c.Eventually("another member leads", func() bool {
		for _, m := range c.Members {
			if m != first && m.Store.IsLeader() {
				return true
			}
		}
		return false
	})
	before := count()
	c.Eventually("writes go on", func() bool { return count() > before+50 })
	c.Network.Heal()
	close(stop)
	wg.Wait()
	c.Converged()
	for _, m := range c.Members {
		kvs, _, err := m.Store.Range(ctx, "w")
		if err != nil {
			t.Fatal(err)
		}
		have := map[string]string{}
		for _, kv := range kvs {
			have[string(kv.Key)] = string(kv.Value)
		}
		for key, value := range acknowledged {
			if have[key] != value {
				t.Fatalf("%s: acknowledged %s=%s, found %q", m.Name, key, value, have[key])
			}
		}
	}
}

func TestPartitionedLeaderServesNoLinearizableRead(t *testing.T) {
	c := storetest.Start(t, 3, func(s *store.Config, _ *etcdapi.Config) { s.RequestTimeout = 2 * time.Second })
	old := c.Leader()
	ctx := patience(t)
	if _, err := c.Client(old).Put(ctx, "key", "old"); err != nil {
		t.Fatal(err)
	}
	c.Network.Cut([]string{old.Name}, names(c.Members, old))
	var next *storetest.Member
	c.Eventually("another member leads", func() bool {
		for _, m := range c.Members {
			if m != old && m.Store.IsLeader() {
				next = m
			}
		}
		return next != nil
	})
	if _, err := c.Client(next).Put(ctx, "key", "new"); err != nil {
		t.Fatal(err)
	}
	if err := old.Store.Linearize(ctx); err == nil {
		t.Fatal("the partitioned leader confirmed a read")
	}
	if err := old.Store.VerifyLeader(ctx); !errors.Is(err, store.ErrNotLeader) {
		t.Fatalf("the partitioned leader says it leads: %v", err)
	}
	if _, err := old.Store.ProposeRenewal(ctx, &raftlogv1.LeaseRenewal{Incarnation: 1}); err == nil {
		t.Fatal("the partitioned leader renewed leases")
	}
	kvs, _, err := old.Store.Range(ctx, "key")
	if err != nil || len(kvs) != 1 || string(kvs[0].Value) != "old" {
		t.Fatalf("its serializable reads go on: %v %v", kvs, err)
	}
}

// TestLeaderThatLosesPowerIsLetGo has calls under way to a leader that never
// answers them: reads move to the next leader, and a write is not repeated.
func TestLeaderThatLosesPowerIsLetGo(t *testing.T) {
	c := storetest.Start(t, 3, func(s *store.Config, _ *etcdapi.Config) { s.RequestTimeout = 15 * time.Second })
	leader, follower := c.Leader(), c.Follower()
	ctx := patience(t)
	if _, err := follower.Store.Propose(ctx, putOp("key", "0")); err != nil {
		t.Fatal(err)
	}
	c.Network.Silence([]string{leader.Name}, names(c.Members, leader))
	start := time.Now()
	wrote := make(chan error, 1)
	go func() {
		_, err := follower.Store.Propose(ctx, putOp("key", "1"))
		wrote <- err
	}()
	if err := follower.Store.Linearize(ctx); err != nil {
		t.Fatalf("read across the loss of the leader: %v", err)
	}
	if err := <-wrote; !errors.Is(err, store.ErrOutcomeUnknown) {
		t.Fatalf("write that was under way: %v", err)
	}
	if took := time.Since(start); took > 6*time.Second {
		t.Fatalf("took %v", took)
	}
	if _, err := follower.Store.Propose(ctx, putOp("key", "2")); err != nil {
		t.Fatalf("write after the loss of the leader: %v", err)
	}
	c.Network.Heal()
	c.Converged()
}

func TestMinorityRefusesWrites(t *testing.T) {
	c := storetest.Start(t, 3, func(s *store.Config, _ *etcdapi.Config) { s.RequestTimeout = time.Second })
	leader := c.Leader()
	ctx := patience(t)
	if _, err := c.Client(leader).Put(ctx, "key", "1"); err != nil {
		t.Fatal(err)
	}
	for _, m := range c.Members {
		if m != leader {
			m.Stop()
		}
	}
	_, err := leader.Store.Propose(ctx, putOp("key", "2"))
	if !errors.Is(err, store.ErrNoLeader) && !errors.Is(err, store.ErrOutcomeUnknown) && !errors.Is(err, store.ErrTimeout) {
		t.Fatalf("write without a quorum: %v", err)
	}
	for _, m := range c.Members {
		if m != leader {
			m.Start()
		}
	}
	c.Leader()
	if _, err := c.Client().Put(ctx, "key", "3"); err != nil {
		t.Fatalf("write after the quorum is back: %v", err)
	}
}

func TestRestartAppliesNothingTwice(t *testing.T) {
	registries := map[string]*prometheus.Registry{}
	c := storetest.Start(t, 1, func(s *store.Config, _ *etcdapi.Config) {
		registries[s.Name] = prometheus.NewRegistry()
		s.Registerer = registries[s.Name]
	})
	m := c.Leader()
	ctx := patience(t)
	for i := range 50 {
		if _, err := m.Store.Propose(ctx, putOp("key", fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	revision, index := m.Store.Revision(), m.Store.AppliedIndex()
	for range 2 {
		m.Stop()
		m.Start()
		if m.Store.AppliedIndex() < index {
			t.Fatalf("opened at index %d, was at %d", m.Store.AppliedIndex(), index)
		}
		c.Leader()
		if err := m.Store.Linearize(ctx); err != nil {
			t.Fatal(err)
		}
		if m.Store.Revision() != revision {
			t.Fatalf("revision %d after restart, was %d", m.Store.Revision(), revision)
		}
		if n := counter(t, registries["m0"], "tripod_store_entries_applied_total"); n != 0 {
			t.Fatalf("%v entries were applied again", n)
		}
		if n := counter(t, registries["m0"], "tripod_store_entries_skipped_total"); n < 50 {
			t.Fatalf("only %v entries were recognised as applied, so this test shows nothing", n)
		}
	}
}

func counter(t *testing.T, g prometheus.Gatherer, name string) float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func TestMetricsAreWellFormed(t *testing.T) {
	r := prometheus.NewPedanticRegistry()
	c := storetest.Start(t, 1, func(s *store.Config, _ *etcdapi.Config) { s.Registerer = r })
	c.Leader()
	if problems, err := testutil.GatherAndLint(r); err != nil || len(problems) > 0 {
		t.Fatalf("%v %v", problems, err)
	}
}

func TestRenewalReachesEveryMemberAndMakesNoRevision(t *testing.T) {
	var mu sync.Mutex
	heard := map[string][]store.RenewalApplied{}
	c := storetest.Start(t, 3, func(s *store.Config, _ *etcdapi.Config) {
		s.OnRenewal = func(r store.RenewalApplied) {
			mu.Lock()
			defer mu.Unlock()
			heard[s.Name] = append(heard[s.Name], r)
		}
	})
	leader := c.Leader()
	ctx := patience(t)
	c.Eventually("the first incarnation is open", func() bool { return leader.Store.Incarnation() == 1 })
	revision := leader.Store.Revision()
	applied, err := leader.Store.ProposeRenewal(ctx, &raftlogv1.LeaseRenewal{Clusters: []string{"north-1a", "south-1a"}, Tick: 7, Incarnation: 1, SteadyMillis: 60_000})
	if err != nil {
		t.Fatal(err)
	}
	if applied.Revision != revision || leader.Store.Revision() != revision || applied.Tick != 7 || len(applied.Clusters) != 2 {
		t.Fatalf("applied %+v at revision %d", applied, leader.Store.Revision())
	}
	c.Eventually("every member applied it", func() bool {
		mu.Lock()
		defer mu.Unlock()
		for _, m := range c.Members {
			if len(heard[m.Name]) != 1 || heard[m.Name][0].Index != applied.Index || heard[m.Name][0].Steady != time.Minute {
				return false
			}
		}
		return true
	})
	if _, err := leader.Store.ProposeRenewal(ctx, &raftlogv1.LeaseRenewal{Incarnation: 2}); err == nil {
		t.Fatal("a renewal of another incarnation was accepted")
	}
	if _, err := c.Follower().Store.ProposeRenewal(ctx, &raftlogv1.LeaseRenewal{Incarnation: 1}); !errors.Is(err, store.ErrNotLeader) {
		t.Fatalf("a follower proposed a renewal: %v", err)
	}
	follower := c.Follower()
	follower.Stop()
	mu.Lock()
	heard[follower.Name] = nil
	mu.Unlock()
	follower.Start()
	c.Eventually("a replayed renewal is told again, but says nothing about the time since", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(heard[follower.Name]) == 1 && heard[follower.Name][0].Steady == 0
	})
}

func TestIncarnationOnlyGrowsAndIsKept(t *testing.T) {
	c := storetest.Start(t, 1, nil)
	m := c.Leader()
	ctx := patience(t)
	c.Eventually("the first incarnation is open", func() bool { return m.Store.Incarnation() == 1 })
	cluster := m.Store.Membership().ClusterID()
	if _, err := m.Store.Propose(ctx, store.StartIncarnation(5, "test")); err != nil {
		t.Fatal(err)
	}
	for _, n := range []uint64{0, 1, 5} {
		if _, err := m.Store.Propose(ctx, store.StartIncarnation(n, "test")); err == nil {
			t.Fatalf("incarnation %d was opened after 5", n)
		}
	}
	m.Stop()
	m.Start()
	if m.Store.Incarnation() != 5 || m.Store.Membership().ClusterID() != cluster || cluster == 0 {
		t.Fatalf("incarnation %d, cluster %x after restart, want 5, %x", m.Store.Incarnation(), m.Store.Membership().ClusterID(), cluster)
	}
}

func TestLeadershipIsToldAfterTheBarrier(t *testing.T) {
	c := storetest.Start(t, 3, nil)
	leader := c.Leader()
	ctx := patience(t)
	follower := c.Follower()
	changes := follower.Store.Subscribe(ctx)
	for l := range changes {
		if l.Leading {
			t.Fatalf("follower was told %+v", l)
		}
		if l.Leader == leader.Name {
			break
		}
	}
	local := c.Client(follower)
	put, err := c.Client(leader).Put(ctx, "written", "before the transfer")
	if err != nil {
		t.Fatal(err)
	}
	if err := leader.Store.Membership().Transfer(ctx, follower.Name); err != nil {
		t.Fatal(err)
	}
	for l := range changes {
		if l.Leading {
			break
		}
	}
	// A read of what this member has applied, whoever leads meanwhile.
	got, err := local.Get(ctx, "written", clientv3.WithSerializable())
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Kvs) != 1 || got.Kvs[0].ModRevision != put.Header.Revision {
		t.Fatalf("the new leader was told before it had applied revision %d: it has %v", put.Header.Revision, got.Kvs)
	}
	if err := follower.Store.Membership().Transfer(ctx, "nobody"); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Fatalf("transfer to an unknown member: %v", err)
	}
}
