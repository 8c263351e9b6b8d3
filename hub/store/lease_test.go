package store_test

import (
	"errors"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"tripod.dev/tripod/hub/store/storetest"
)

func TestLeaseExpiresAcrossAChangeOfLeader(t *testing.T) {
	c := storetest.Start(t, 3, nil)
	leader := c.Leader()
	ctx := patience(t)
	client := c.Client(c.Follower())
	short, err := client.Grant(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := client.Grant(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	for key, id := range map[string]clientv3.LeaseID{"short": short.ID, "kept": kept.ID} {
		if _, err := client.Put(ctx, key, "v", clientv3.WithLease(id)); err != nil {
			t.Fatal(err)
		}
	}
	alive, err := client.KeepAlive(ctx, kept.ID)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for range alive {
		}
	}()
	next := c.Follower()
	if err := leader.Store.Membership().Transfer(ctx, next.Name); err != nil {
		t.Fatal(err)
	}
	c.Eventually("the key of the lease is gone everywhere", func() bool {
		for _, m := range c.Members {
			kvs, _, err := m.Store.Range(ctx, "short")
			if err != nil || len(kvs) != 0 {
				return false
			}
		}
		return true
	})
	get, err := client.Get(ctx, "kept")
	if err != nil || len(get.Kvs) != 1 {
		t.Fatalf("the lease that is kept alive ended: %v %v", get, err)
	}
	ttl, err := client.TimeToLive(ctx, kept.ID, clientv3.WithAttachedKeys())
	if err != nil || ttl.TTL <= 0 || len(ttl.Keys) != 1 || string(ttl.Keys[0]) != "kept" {
		t.Fatalf("time to live %+v: %v", ttl, err)
	}
	gone, err := client.TimeToLive(ctx, short.ID)
	if err != nil || gone.TTL != -1 {
		t.Fatalf("time to live of the ended lease %+v: %v", gone, err)
	}
}

func TestLeaseErrorsAreEtcds(t *testing.T) {
	c := storetest.Start(t, 3, nil)
	c.Leader()
	ctx := patience(t)
	for _, m := range c.Members {
		client := c.Client(m)
		if _, err := client.Put(ctx, "k", "v", clientv3.WithLease(77)); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			t.Fatalf("%s: put with unknown lease: %v", m.Name, err)
		}
		if _, err := client.Revoke(ctx, 77); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			t.Fatalf("%s: revoke of unknown lease: %v", m.Name, err)
		}
		if _, err := client.KeepAliveOnce(ctx, 77); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			t.Fatalf("%s: keep alive of unknown lease: %v", m.Name, err)
		}
		if _, err := client.Grant(ctx, 10_000_000_000); !errors.Is(err, rpctypes.ErrLeaseTTLTooLarge) {
			t.Fatalf("%s: grant of too long a lease: %v", m.Name, err)
		}
	}
}
