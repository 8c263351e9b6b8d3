package clientcases_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/etcdapi"
	"tripod.dev/tripod/hub/store/storetest"
)

// TestWithoutQuorum asks a member that is alone, and asks again when it is not.
func TestWithoutQuorum(t *testing.T) {
	t.Parallel()
	c := storetest.Start(t, 3, func(s *store.Config, a *etcdapi.Config) {
		steady(s, a)
		s.RequestTimeout, a.LeaderLoss = 2*time.Second, time.Second
	})
	alone := c.Follower()
	s := join(t, c, alone)
	lease := s.grant(300)
	from := s.put("key", "v").Header.Revision + 1
	keptOn, err := s.KeepAlive(s.ctx, lease)
	s.check("keep alive", err)
	needing, err := s.KeepAlive(clientv3.WithRequireLeader(s.ctx), s.grant(300))
	s.check("keep alive", err)
	<-keptOn
	<-needing
	waiting := s.Watch(s.ctx, "key", clientv3.WithRev(from))
	led := s.Watch(clientv3.WithRequireLeader(s.ctx), "key", clientv3.WithCreatedNotify())
	s.next(led)

	// Cut off first: a leader that stops hands over, perhaps to this member, which
	// would be elected and lead until it notices that nobody follows.
	others, names := except(c, alone)
	c.Network.Cut([]string{alone.Name}, names)
	for _, m := range others {
		m.Stop()
	}
	c.Eventually("the member knows no leader", func() bool { return alone.Store.Membership().LeaderID() == 0 })
	quorumLost(t, c, alone, lease)
	if r := s.last(led); !errors.Is(r.Err(), rpctypes.ErrNoLeader) {
		t.Errorf("a watch that requires a leader: %+v, error %v", r, r.Err())
	}
	for range needing {
		// What was answered before the loss.
	}

	c.Network.Heal()
	for _, m := range others {
		m.Start()
	}
	c.Leader()
	c.Eventually("the member has a leader again", func() bool { return alone.Store.Membership().LeaderID() != 0 })
	s.put("key", "back")
	// Nothing that failed was carried out later.
	events := s.events(waiting, 1)
	if last := events[len(events)-1]; string(last.Kv.Value) != "back" {
		t.Errorf("the watch that waited was told %v first", last)
	}
	if _, err := s.KeepAliveOnce(s.ctx, lease); err != nil {
		t.Errorf("the lease did not outlive the loss: %v", err)
	}
	select {
	case _, ok := <-keptOn:
		if !ok {
			t.Error("the stream that does not require a leader was closed")
		}
	default:
	}
}

func quorumLost(t *testing.T, c *storetest.Cluster, alone *storetest.Member, lease clientv3.LeaseID) {
	t.Helper()
	s := join(t, c, alone)
	// The client repeats some calls until their time is up, or for seconds.
	type call struct {
		repeated bool
		do       func(ctx context.Context) error
	}
	var wg sync.WaitGroup
	for name, call := range map[string]call{
		"put":    {false, func(ctx context.Context) error { _, err := s.Put(ctx, "key", "lost"); return err }},
		"delete": {false, func(ctx context.Context) error { _, err := s.Delete(ctx, "key"); return err }},
		"txn": {false, func(ctx context.Context) error {
			_, err := s.Txn(ctx).Then(clientv3.OpPut("key", "lost")).Commit()
			return err
		}},
		"compact":      {false, func(ctx context.Context) error { _, err := s.Compact(ctx, 2); return err }},
		"get":          {true, func(ctx context.Context) error { _, err := s.Get(ctx, "key"); return err }},
		"reading txn":  {true, func(ctx context.Context) error { _, err := s.Txn(ctx).Then(clientv3.OpGet("key")).Commit(); return err }},
		"grant":        {true, func(ctx context.Context) error { _, err := s.Grant(ctx, 300); return err }},
		"revoke":       {true, func(ctx context.Context) error { _, err := s.Revoke(ctx, lease); return err }},
		"time to live": {true, func(ctx context.Context) error { _, err := s.TimeToLive(ctx, lease); return err }},
	} {
		wg.Go(func() {
			ctx := s.ctx
			if call.repeated {
				brief, cancel := context.WithTimeout(ctx, 1500*time.Millisecond)
				defer cancel()
				ctx = brief
			}
			err := call.do(ctx)
			late := call.repeated && errors.Is(err, context.DeadlineExceeded)
			if !late && !isUnavailable(err) {
				t.Errorf("%s: %v", name, err)
			}
		})
		wg.Go(func() {
			if err := call.do(clientv3.WithRequireLeader(s.ctx)); !errors.Is(err, rpctypes.ErrNoLeader) {
				t.Errorf("%s that requires a leader: %v", name, err)
			}
		})
	}
	wg.Wait()
	if kv := s.get("key", clientv3.WithSerializable()).Kvs[0]; string(kv.Value) != "v" {
		t.Errorf("serializable get: %v", kv)
	}
	s.commit(s.Txn(s.ctx).Then(clientv3.OpGet("key", clientv3.WithSerializable())))
	r, err := s.Status(s.ctx, s.Endpoints()[0])
	s.check("status", err)
	if r.Leader != 0 || !slices.Contains(r.Errors, "etcdserver: no leader") {
		t.Errorf("status %+v", r)
	}
	_, err = s.kv().Put(s.ctx, putRequest("key"))
	if status.Code(err) != codes.Unavailable {
		t.Errorf("the code is %s, clients expect %s: %v", status.Code(err), codes.Unavailable, err)
	}
}

// TestCallsOutliveRestarts: a read waits for its member; a write is never made
// twice, whatever happens to the connection; calls of a client that is closed
// end.
func TestCallsOutliveRestarts(t *testing.T) {
	t.Parallel()
	c := storetest.Start(t, 1, nil)
	c.Leader()
	m := c.Members[0]
	s, w := wired(t, c)
	s.put("key", "1")
	for i := range 20 {
		done := make(chan error, 1)
		go func() {
			_, err := s.Put(s.ctx, "key", "more")
			done <- err
		}()
		w.drop()
		<-done
		if v := join(t, c).get("key").Kvs[0].Version; v > int64(i+2) {
			t.Fatalf("%d puts made version %d", i+2, v)
		}
	}
	before := join(t, c).get("key").Kvs[0]

	m.Stop()
	answers := make(chan *clientv3.GetResponse, 1)
	go func() {
		r, err := s.Get(s.ctx, "key")
		if err != nil {
			t.Errorf("get over the restart: %v", err)
		}
		answers <- r
	}()
	brief, cancel := context.WithTimeout(s.ctx, 500*time.Millisecond)
	defer cancel()
	if _, err := s.Put(brief, "key", "lost"); err == nil {
		t.Error("a put to a member that is stopped succeeded")
	}
	m.Start()
	if r := <-answers; r == nil || r.Kvs[0].ModRevision != before.ModRevision || r.Kvs[0].Version != before.Version {
		t.Errorf("after the restart: %v, before: %v", r, before)
	}
	m.Stop()
	ended := make(chan error, 2)
	for _, call := range []func() error{
		func() error { _, err := s.Get(s.ctx, "key"); return err },
		func() error { _, err := s.Put(s.ctx, "key", "v"); return err },
	} {
		go func() { ended <- call() }()
	}
	s.check("close", s.Close())
	for range 2 {
		if err := <-ended; err == nil {
			t.Error("a call to a stopped member succeeded")
		}
	}
}

// TestRevisionsOnlyGrow cuts off and restarts the leader and a follower under
// readers and a writer.
func TestRevisionsOnlyGrow(t *testing.T) {
	c := storetest.Start(t, 3, nil)
	defer revisionsGrow(t, c)()
	cut := func(m *storetest.Member) {
		_, others := except(c, m)
		c.Network.Cut([]string{m.Name}, others)
		c.Eventually("the member that is cut off has no leader", func() bool { return m.Store.Membership().LeaderID() == 0 })
		c.Eventually("another leads", func() bool { return c.Leader() != m })
		c.Network.Heal()
		c.Eventually("the member has a leader again", func() bool { return m.Store.Membership().LeaderID() != 0 })
	}
	restart := func(m *storetest.Member) {
		m.Stop()
		c.Leader()
		m.Start()
		c.Eventually("the member has a leader again", func() bool { return m.Store.Membership().LeaderID() != 0 })
	}
	cut(c.Leader())
	cut(c.Follower())
	restart(c.Leader())
	restart(c.Follower())
}

// revisionsGrow writes, and reads at each member and at all in turn, until what it
// returns is called.
func revisionsGrow(t *testing.T, c *storetest.Cluster) (stop func()) {
	ctx, cancel := context.WithCancel(patience(t))
	var wg sync.WaitGroup
	grow := func(call func(ctx context.Context) (int64, error)) {
		wg.Go(func() {
			for last := int64(0); ctx.Err() == nil; {
				attempt, cancel := context.WithTimeout(ctx, time.Second)
				revision, err := call(attempt)
				cancel()
				if err == nil && revision < last {
					t.Errorf("revision %d after %d", revision, last)
				}
				last = max(last, revision)
			}
		})
	}
	read := func(client *clientv3.Client, opts ...clientv3.OpOption) {
		grow(func(ctx context.Context) (int64, error) {
			r, err := client.Get(ctx, "key", opts...)
			if err != nil {
				return 0, err
			}
			return r.Header.Revision, nil
		})
	}
	for _, m := range c.Members {
		read(c.Client(m))
		read(c.Client(m), clientv3.WithSerializable())
	}
	all := c.Client()
	read(all)
	grow(func(ctx context.Context) (int64, error) {
		r, err := all.Put(ctx, "key", "v")
		if err != nil {
			return 0, err
		}
		return r.Header.Revision, nil
	})
	return func() {
		cancel()
		wg.Wait()
	}
}
