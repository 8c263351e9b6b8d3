package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/store/etcdapi"
	"tripod.dev/tripod/hub/store/storetest"
	raftlogv1 "tripod.dev/tripod/proto/raftlog/v1"
)

// filled is a hub whose database has outgrown its quota, and the last key put.
func filled(t *testing.T) (*storetest.Cluster, int) {
	t.Helper()
	c := storetest.Start(t, 3, func(s *store.Config, _ *etcdapi.Config) { s.Quota = 2 << 20 })
	c.Leader()
	ctx, client, value := patience(t), c.Client(), strings.Repeat("v", 64<<10)
	for i := 0; ; i++ {
		_, err := client.Put(ctx, fmt.Sprintf("big/%d", i), value)
		if errors.Is(err, rpctypes.ErrNoSpace) {
			c.Eventually("the alarm is known to all", func() bool {
				for _, m := range c.Members {
					if len(m.Store.Maintenance().Committed()) != 1 {
						return false
					}
				}
				return true
			})
			return c, i
		}
		if err != nil || i > 1000 {
			t.Fatalf("put %d: %v", i, err)
		}
	}
}

func TestDatabaseOverItsQuotaRefusesGrowthOnEveryMember(t *testing.T) {
	c, last := filled(t)
	ctx := patience(t)
	for _, m := range c.Members {
		client := c.Client(m)
		creating := client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision("new"), "=", 0)).Then(clientv3.OpPut("new", "v"))
		_, putErr := client.Put(ctx, "small", "v")
		_, txnErr := creating.Commit()
		_, leaseErr := client.Grant(ctx, 60)
		for what, err := range map[string]error{"put": putErr, "creating transaction": txnErr, "lease grant": leaseErr} {
			if !errors.Is(err, rpctypes.ErrNoSpace) {
				t.Errorf("%s through %s: %v", what, m.Name, err)
			}
		}
		if get, err := client.Get(ctx, "big/0"); err != nil || len(get.Kvs) != 1 {
			t.Errorf("read through %s: %v %v", m.Name, get, err)
		}
		if alarms, err := client.AlarmList(ctx); err != nil || len(alarms.Alarms) != 1 || alarms.Alarms[0].Alarm != pb.AlarmType_NOSPACE {
			t.Errorf("alarms of %s: %v %v", m.Name, alarms, err)
		}
		if status, err := client.Status(ctx, "https://"+m.Address.PeerAddress); err != nil || len(status.Errors) != 1 || !strings.Contains(status.Errors[0], "tripodctl hub compact") {
			t.Errorf("status of %s does not say what to do: %v %v", m.Name, status, err)
		}
	}
	deleting := c.Client().Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision("big/0"), ">", 0)).Then(clientv3.OpDelete("big/0"))
	if done, err := deleting.Commit(); err != nil || !done.Succeeded {
		t.Errorf("a transaction that deletes: %v %v", done, err)
	}
	renewal := &raftlogv1.LeaseRenewal{Clusters: []string{"north-1a"}, Incarnation: c.Leader().Store.Incarnation()}
	if _, err := c.Leader().Store.ProposeRenewal(ctx, renewal); err != nil {
		t.Errorf("a renewal of clusters' leases: %v", err)
	}
	restarted := c.Follower()
	restarted.Stop()
	restarted.Start()
	c.Converged()
	if len(restarted.Store.Maintenance().Committed()) != 1 {
		t.Error("a member has forgotten the alarm over a restart")
	}
	relieve(t, c, ctx, last)
	assertSameHash(t, c, ctx)
}

// relieve deletes and compacts until the hub takes writes again by itself.
func relieve(t *testing.T, c *storetest.Cluster, ctx context.Context, last int) {
	t.Helper()
	deleted, err := c.Client().Delete(ctx, "big/", clientv3.WithPrefix())
	if err != nil || deleted.Deleted < int64(last-1) {
		t.Fatalf("delete: %v %v", deleted, err)
	}
	if _, err := c.Client().Compact(ctx, deleted.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	client := c.Client()
	c.Eventually("writes are accepted", func() bool {
		_, err := client.Put(ctx, "small", "v")
		return err == nil
	})
	c.Converged()
	for _, m := range c.Members {
		if left := m.Store.Maintenance().Committed(); len(left) != 0 {
			t.Errorf("%s still has %v", m.Name, left)
		}
	}
}

// TestDisarmedAlarmComesBackWhileTheDatabaseIsOverItsQuota, as etcd's does.
func TestDisarmedAlarmComesBackWhileTheDatabaseIsOverItsQuota(t *testing.T) {
	c, _ := filled(t)
	ctx := patience(t)
	before := c.Leader().Store.AppliedIndex()
	if _, err := c.Client(c.Follower()).AlarmDisarm(ctx, &clientv3.AlarmMember{}); err != nil {
		t.Fatal(err)
	}
	c.Eventually("the alarm is back", func() bool {
		return c.Leader().Store.AppliedIndex() >= before+2 && len(c.Leader().Store.Maintenance().Committed()) == 1
	})
	if _, err := c.Client().Put(ctx, "small", "v"); !errors.Is(err, rpctypes.ErrNoSpace) {
		t.Fatalf("put: %v", err)
	}
}
