package clientcases_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/etcdapi"
	"tripod.dev/tripod/hub/store/storetest"
)

// TestPartition cuts off one member of three: a client of all of them fails at
// that one, if at all, and succeeds at the next.
func TestPartition(t *testing.T) {
	t.Parallel()
	c := storetest.Start(t, 3, func(s *store.Config, a *etcdapi.Config) {
		steady(s, a)
		s.RequestTimeout, a.LeaderLoss = 2*time.Second, time.Second
	})
	for name, choose := range map[string]func() *storetest.Member{"the leader": c.Leader, "a follower": c.Follower} {
		t.Run(name, func(t *testing.T) { partitioned(t, c, choose()) })
	}
}

func partitioned(t *testing.T, c *storetest.Cluster, isolated *storetest.Member) {
	s, alone := join(t, c), join(t, c, isolated)
	alone.put("key", "1")
	led := alone.Watch(clientv3.WithRequireLeader(alone.ctx), "key", clientv3.WithCreatedNotify())
	alone.next(led)
	answering(t, c, s, c.Members...)

	others, names := except(c, isolated)
	c.Network.Cut([]string{isolated.Name}, names)
	if r := alone.last(led); !errors.Is(r.Err(), rpctypes.ErrNoLeader) {
		t.Errorf("a watch that requires a leader: %+v, error %v", r, r.Err())
	}
	c.Eventually("another leads", func() bool { return others[0].Store.IsLeader() || others[1].Store.IsLeader() })
	for name, call := range map[string]func(ctx context.Context) error{
		"put":    func(ctx context.Context) error { _, err := s.Put(ctx, "key", "2"); return err },
		"delete": func(ctx context.Context) error { _, err := s.Delete(ctx, "other"); return err },
		"txn": func(ctx context.Context) error {
			_, err := s.Txn(ctx).Then(clientv3.OpPut("txn", "v")).Commit()
			return err
		},
		"get":              func(ctx context.Context) error { _, err := s.Get(ctx, "key"); return err },
		"serializable get": func(ctx context.Context) error { _, err := s.Get(ctx, "key", clientv3.WithSerializable()); return err },
	} {
		c.Eventually(name+" reaches another member", func() bool {
			err := call(s.ctx)
			if err != nil && !isUnavailable(err) {
				t.Errorf("%s: %v", name, err)
			}
			return err == nil
		})
	}
	if kv := alone.get("key", clientv3.WithSerializable()).Kvs; len(kv) != 1 || string(kv[0].Value) != "1" {
		t.Errorf("the member that is cut off reads %v", kv)
	}
	c.Network.Heal()
	c.Eventually("the member has a leader again", func() bool { return isolated.Store.Membership().LeaderID() != 0 })
	if kv := alone.get("key").Kvs; len(kv) != 1 || string(kv[0].Value) != "2" {
		t.Errorf("after the cut the member reads %v", kv)
	}
}
